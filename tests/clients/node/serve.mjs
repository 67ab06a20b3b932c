// The loop of every Node client: one JSON job a line in, one JSON line out of what the client saw.
import { createInterface } from "node:readline";

export const weather = ({ city }) => `sunny in ${city}`;

export async function serve(actions, describe) {
  for await (const line of createInterface({ input: process.stdin })) {
    const job = JSON.parse(line);
    const seen = { text: "", pieces: 0, finish_reason: null, usage: null, tools: [], error: null };
    const started = performance.now();
    try {
      await actions[job.do](job, seen);
    } catch (error) {
      seen.error = { classes: classes(error), message: String(error), ...describe(error) };
    }
    seen.elapsed_s = (performance.now() - started) / 1000;
    console.log(JSON.stringify(seen));
  }
}

// The names of the error's class and of all its parents, as `instanceof` sees them.
export function classes(error) {
  const names = [];
  for (let kind = error?.constructor; kind?.name; kind = Object.getPrototypeOf(kind)) names.push(kind.name);
  return names;
}
