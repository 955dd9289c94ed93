// The order of those who came before a room opened, for anyone to check: what place each ticket got.
// Specified in crates/model/src/lottery.rs. Node 20, no packages.
//
//   node lottery.mjs SEED EARLY TICKET   prints the ticket's place
//   node lottery.mjs SEED EARLY          prints the places of tickets 1 to EARLY, one a line

import { createHash } from "node:crypto";
import { realpathSync } from "node:fs";
import { Readable } from "node:stream";
import { fileURLToPath } from "node:url";

const ROUNDS = 6;
const MOST = 2 ** 32;

/**
 * The place, from 1, of a ticket, where `early` tickets came before the room opened, with its seed.
 * A later ticket's place is its number. Exact up to 2^32 early tickets.
 */
export function placeOf(ticket, early, seed) {
  if (ticket > early || ticket === 0) return ticket;
  let m = 2;
  while (m * m < early) m *= 2;
  let x = ticket - 1;
  do {
    // Halves are below 2^16, so that ^ is safe; x itself may not be, and is never an operand of it.
    let left = Math.floor(x / m);
    let right = x % m;
    for (let i = 1; i <= ROUNDS; i++) [left, right] = [right, left ^ round(seed, i, right, m)];
    x = left * m + right;
  } while (x >= early);
  return x + 1;
}

function round(seed, i, half, m) {
  return createHash("sha1").update(`${seed}:${i}:${half}`).digest().readUInt32BE(0) % m;
}

function* lines(early, seed) {
  let some = "";
  for (let ticket = 1; ticket <= early; ticket++) {
    some += `${placeOf(ticket, early, seed)}\n`;
    if (some.length > 16_384) {
      yield some;
      some = "";
    }
  }
  yield some;
}

function main() {
  const [seed, ...numbers] = process.argv.slice(2);
  const [early, ticket] = numbers.map((text) => (/^\d{1,15}$/.test(text) ? Number(text) : NaN));
  const valid = seed !== undefined && early <= MOST && (numbers.length === 1 || ticket >= 1);
  if (!valid || numbers.length > 2) {
    console.error("usage: node lottery.mjs SEED EARLY [TICKET]; EARLY is 0 to 2^32, TICKET 1 or more");
    process.exit(2);
  }
  if (numbers.length === 2) {
    console.log(String(placeOf(ticket, early, seed)));
    return;
  }
  // Whoever reads may have had enough, as `head` has.
  process.stdout.on("error", (error) => process.exit(error.code === "EPIPE" ? 0 : 1));
  Readable.from(lines(early, seed)).pipe(process.stdout);
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) main();
