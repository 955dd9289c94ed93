// Follows streams with one library, and prints what the library shows to its program: one line of JSON each.
//
//   node follow.mjs LIBRARY [NAME URL TOKEN]...
//
// An empty TOKEN is none. The stream named "bare" is followed without the line that the documentation adds.

const EVENTS = [
  "message", "liveMapLocation", "liveMapRemoved", "status", "reset", "heartbeat", "busy", "reconnect", "end",
];

const print = (stream, what) => console.log(JSON.stringify({ stream, at: Date.now(), ...what }));

const follow = {
  async eventsource(stream, url, authorization) {
    const { EventSource } = await import("eventsource");
    const source = new EventSource(url, {
      async fetch(input, init) {
        const response = await fetch(input, { ...init, headers: { ...init.headers, ...authorization } });
        print(stream, { open: response.headers.get("content-encoding") });
        return response;
      },
    });
    listen(stream, source);
    source.onerror = ({ code, message }) => failed(stream, source, `${code} ${message}`);
  },

  async "event-source-polyfill"(stream, url, authorization) {
    const { default: polyfill } = await import("event-source-polyfill");
    // Longer than this test may take; the library's own 45 s fit the edge's heartbeats.
    const source = new polyfill.EventSourcePolyfill(url, { headers: authorization, heartbeatTimeout: 120_000 });
    listen(stream, source);
    source.onopen = ({ headers }) => print(stream, { open: headers.get("content-encoding") });
    source.onerror = ({ status, error }) => failed(stream, source, `${status} ${error}`);
  },

  async "fetch-event-source"(stream, url, authorization) {
    // The library is written for pages.
    globalThis.window = globalThis;
    globalThis.document = { addEventListener() {}, removeEventListener() {} };
    const { fetchEventSource } = await import("@microsoft/fetch-event-source");
    const leaving = new AbortController();
    await fetchEventSource(url, {
      headers: authorization,
      signal: leaving.signal,
      openWhenHidden: true,
      async fetch(input, init) {
        const response = await fetch(input, init);
        print(stream, { open: response.headers.get("content-encoding") });
        return response;
      },
      onmessage({ event, data, id }) {
        print(stream, { event, data, id });
        if (event === "end") leaving.abort();
      },
      onerror(error) {
        print(stream, { error: String(error) });
      },
      // The line that makes it come back after a regular end.
      onclose: stream === "bare" ? undefined : () => { throw new Error("the stream ended"); },
    });
    print(stream, { closed: true });
  },
};

function listen(stream, source) {
  for (const name of EVENTS) {
    source.addEventListener(name, ({ type, data, lastEventId }) => {
      print(stream, { event: type, data, id: lastEventId });
      if (type === "end") {
        source.close();
        print(stream, { closed: true });
      }
    });
  }
}

function failed(stream, source, error) {
  print(stream, { error });
  if (source.readyState === 2) print(stream, { closed: true });
}

const [library, ...streams] = process.argv.slice(2);
for (let at = 0; at < streams.length; at += 3) {
  const [name, url, token] = streams.slice(at, at + 3);
  follow[library](name, url, token ? { authorization: `Bearer ${token}` } : {});
}
