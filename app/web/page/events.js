// Server-sent events of a POST, which the browser's own EventSource cannot send.

import { Problem, send } from "./api.js";

/** Yields { name, data }, the data from JSON. Throws Problem, also for an event `error` and for a stream that is cut off. */
export async function* streamed(path, body, signal) {
  const response = await send("POST", path, { body, signal, accept: "text/event-stream" });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  try {
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
      waiting += piece.value.replaceAll("\r", "");
      const whole = waiting.split("\n\n");
      waiting = whole.pop();
      for (const event of whole.map(parsed).filter(Boolean)) {
        if (event.name === "error") throw new Problem(event.data);
        yield event;
        if (event.name === "done") return;
      }
    }
  } catch (error) {
    if (error instanceof Problem || error.name === "AbortError") throw error;
    throw new Problem({ type: "unreachable" });
  } finally {
    reader.cancel().catch(() => {});
  }
  throw new Problem({ type: "cut-off" });
}

/** null for a comment, such as a ping. */
function parsed(text) {
  const fields = { event: "message", data: [] };
  for (const line of text.split("\n")) {
    const [, name, value] = /^([a-z]+): ?(.*)$/.exec(line) ?? [];
    if (name === "data") fields.data.push(value);
    else if (name === "event") fields.event = value;
  }
  return fields.data.length ? { name: fields.event, data: JSON.parse(fields.data.join("\n")) } : null;
}
