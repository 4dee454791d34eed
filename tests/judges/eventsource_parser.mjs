// Each line of standard input is the body of a response: a JSON list of its chunks, in
// base64. Each is answered with one line: what eventsource-parser reported, in order.

import { createInterface } from "node:readline";
import { createParser } from "eventsource-parser";

for await (const line of createInterface({ input: process.stdin })) {
  const reports = [];
  const parser = createParser({
    onEvent: ({ data, event, id }) => reports.push({ data, event, id }),
    onRetry: (retry) => reports.push({ retry }),
    onComment: (comment) => reports.push({ comment }),
    onError: (error) => reports.push({ error: error.message }),
  });
  const decoder = new TextDecoder();
  for (const chunk of JSON.parse(line)) {
    parser.feed(decoder.decode(Buffer.from(chunk, "base64"), { stream: true }));
  }
  console.log(JSON.stringify(reports));
}
