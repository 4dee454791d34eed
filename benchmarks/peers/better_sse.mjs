// better-sse on node:http, serving the sources of sources.py.
//
// Listens on the port that it is called with.

import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { createChannel, createSession } from "better-sse";

const channel = createChannel();
const text = "x".repeat(30);

async function stream(request, response, url) {
  const number = (name, otherwise) => Number(url.searchParams.get(name) ?? otherwise);
  const session = await createSession(request, response);
  switch (url.pathname) {
    case "/flood": {
      const data = "x".repeat(number("size", 30));
      for (let i = 0; i < number("events", 1000); i++) session.push(data);
      response.end();
      break;
    }
    case "/paced": {
      let left = number("events", 100);
      const timer = setInterval(() => {
        if (left-- > 0 && session.isConnected) session.push(text);
        else clearInterval(timer);
      }, number("interval", 0.02) * 1000);
      break;
    }
    case "/idle":
      session.push("hello");
      break;
    case "/subscribe":
      channel.register(session);
  }
}

async function publish(response, url) {
  const [times, burst, interval] = ["times", "burst", "interval"].map((name) =>
    Number(url.searchParams.get(name)),
  );
  const moments = [];
  for (let i = 0; i < times; i++) {
    for (let j = 0; j < burst; j++) {
      moments.push(Number(process.hrtime.bigint()));
      channel.broadcast(text);
    }
    await sleep(interval * 1000);
  }
  response.end(JSON.stringify(moments));
}

const server = createServer((request, response) => {
  const url = new URL(request.url, "http://127.0.0.1");
  if (url.pathname === "/ready") response.end("ready");
  else if (url.pathname === "/publish") publish(response, url);
  else stream(request, response, url);
});

server.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 2048 });
