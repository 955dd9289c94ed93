// A shop's gateway: who has a valid pass of the waiting room comes in. Node 20, no packages.
//
//   PORT=8091 JWKS=http://127.0.0.1:8080/.well-known/jwks.json ROOM=demo node gateway.mjs
//
// /verify answers 204 or 401, as nginx's auth_request wants it; any other path is the shop itself.
// WAITING is where those without a pass are told to go.

import { createPublicKey, verify } from "node:crypto";
import { realpathSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";

const AUDIENCE = "tutti-pass";
// A pass has some 400 characters.
const MAX_CHARS = 4096;
// The clock here may be behind the waiting room's by so many seconds.
const MAX_SKEW = 60;

/** The public keys of a JSON Web Key Set, by key id; those that are not for Ed25519 are left out. */
export function keysOf(jwks) {
  const keys = new Map();
  for (const jwk of Array.isArray(jwks?.keys) ? jwks.keys : []) {
    const { kid, kty, crv, x, use, alg } = jwk ?? {};
    const fits = kty === "OKP" && crv === "Ed25519" && (use ?? "sig") === "sig" && (alg ?? "EdDSA") === "EdDSA";
    if (!fits || typeof kid !== "string") continue;
    try {
      keys.set(kid, createPublicKey({ key: { kty, crv, x }, format: "jwk" }));
    } catch {
      // Not a key; the others are none the worse for it.
    }
  }
  return keys;
}

/**
 * Whether a pass is valid: for this room, at `now` (seconds since 1970), by these keys (of `keysOf`).
 * Gives `{ claims }`, or `{ refused }` with a word: malformed, algorithm, unknown_key, signature,
 * audience, room, expired or not_yet. Never throws on account of the pass.
 */
export function verifyPass(pass, { keys, room, now }) {
  if (typeof pass !== "string" || pass.length > MAX_CHARS) return { refused: "malformed" };
  const parts = pass.split(".");
  if (parts.length !== 3) return { refused: "malformed" };
  const [head, body, signature] = parts.map(bytesOf);
  const header = jsonOf(head);
  if (!header || !body || !signature) return { refused: "malformed" };
  // The algorithm is not the pass's to choose; `crit` would name what must be understood, and is not.
  if (header.alg !== "EdDSA" || "crit" in header) return { refused: "algorithm" };
  const key = typeof header.kid === "string" ? keys.get(header.kid) : undefined;
  if (!key) return { refused: "unknown_key" };
  const signed = Buffer.from(`${parts[0]}.${parts[1]}`, "ascii");
  if (signature.length !== 64 || !verify(null, signed, key, signature)) return { refused: "signature" };

  const claims = jsonOf(body);
  const whole = (n) => Number.isSafeInteger(n) && n >= 0;
  if (!claims || ![claims.ticket, claims.iat, claims.exp].every(whole)) return { refused: "malformed" };
  // A ticket's own token is signed with the same keys, and is valid for days: it is no pass.
  if (claims.aud !== AUDIENCE) return { refused: "audience" };
  if (claims.room !== room) return { refused: "room" };
  if (!(claims.exp > now)) return { refused: "expired" };
  if (!(claims.iat <= now + MAX_SKEW)) return { refused: "not_yet" };
  return { claims };
}

/** Base64url to bytes, where it is exactly what those bytes would be written as; else null. */
function bytesOf(text) {
  if (!/^[A-Za-z0-9_-]+$/.test(text)) return null;
  const bytes = Buffer.from(text, "base64url");
  return bytes.toString("base64url") === text ? bytes : null;
}

/** A JSON object, or null. */
function jsonOf(bytes) {
  try {
    const value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    return value !== null && typeof value === "object" && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

/** The pass that a request brings: in X-Pass, else the cookie `pass`, else as a bearer token. */
export function passOf(headers) {
  if (headers["x-pass"]) return headers["x-pass"];
  for (const cookie of (headers.cookie ?? "").split(";")) {
    const [, value] = /^\s*pass="?([^"]+?)"?\s*$/.exec(cookie) ?? [];
    if (value) return value;
  }
  return /^Bearer +(\S+)$/i.exec(headers.authorization ?? "")?.[1];
}

/**
 * The waiting room's keys: fetched every 60 s, so that a key that was withdrawn is; and at once for a
 * pass of a key that is not known yet, but not more often than every 2 s. While they cannot be
 * fetched, those from before hold.
 */
export class Keys {
  #url;
  #keys = null;
  #tried = -Infinity;
  #fetching = null;

  constructor(url, { every = 60_000, apart = 2_000, timeout = 1_000 } = {}) {
    this.#url = url;
    this.apart = apart;
    this.timeout = timeout;
    this.refresh();
    this.timer = setInterval(() => this.refresh(), every).unref();
  }

  /** By key id; null before they were first had. */
  get current() {
    return this.#keys;
  }

  /** Resolves once the keys are as new as they are to be had for now; never rejects. */
  refresh() {
    if (this.#fetching) return this.#fetching;
    if (performance.now() - this.#tried < this.apart) return Promise.resolve();
    this.#tried = performance.now();
    this.#fetching = this.#fetch()
      .catch((error) => console.error(`the keys at ${this.#url}: ${error.cause?.code ?? error.message}`))
      .finally(() => (this.#fetching = null));
    return this.#fetching;
  }

  async #fetch() {
    const response = await fetch(this.#url, { signal: AbortSignal.timeout(this.timeout) });
    if (!response.ok) throw new Error(`answered ${response.status}`);
    const keys = keysOf(await response.json());
    if (keys.size === 0) throw new Error("no Ed25519 key is among them");
    this.#keys = keys;
  }
}

/** As `verifyPass`, with keys that are fetched; also refuses for the words no_pass and no_keys. */
export async function check(pass, { keys, room }) {
  if (pass === undefined) return { refused: "no_pass" };
  const now = () => Date.now() / 1000;
  const none = new Map();
  let checked = verifyPass(pass, { keys: keys.current ?? none, room, now: now() });
  if (checked.refused === "unknown_key") {
    await keys.refresh();
    checked = verifyPass(pass, { keys: keys.current ?? none, room, now: now() });
  }
  return checked.refused === "unknown_key" && !keys.current ? { refused: "no_keys" } : checked;
}

function main() {
  const { PORT = "8091", ROOM: room = "demo", WAITING: waiting = "/waiting" } = process.env;
  const keys = new Keys(process.env.JWKS ?? "http://127.0.0.1:8080/.well-known/jwks.json");

  const server = createServer(async (request, response) => {
    const { claims, refused } = await check(passOf(request.headers), { keys, room });
    const headers = { "cache-control": "no-store" };
    if (refused) {
      // Without keys nobody is let in, and nobody is sent back to the waiting room either.
      const known = refused !== "no_keys";
      headers["content-type"] = "application/json";
      headers[known ? "www-authenticate" : "retry-after"] = known ? "Bearer" : "2";
      response.writeHead(known ? 401 : 503, headers);
      response.end(`${JSON.stringify(known ? { refused, waitingRoom: waiting } : { refused })}\n`);
      return;
    }
    headers["x-ticket"] = String(claims.ticket);
    if (request.url.split("?")[0] === "/verify") {
      response.writeHead(204, headers).end();
    } else {
      headers["content-type"] = "text/plain; charset=utf-8";
      response.writeHead(200, headers).end(`welcome, ticket ${claims.ticket}\n`);
    }
  });
  server.listen(Number(PORT), "127.0.0.1", () => {
    console.error(`room ${room}: listening on http://127.0.0.1:${server.address().port}`);
  });
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) main();
