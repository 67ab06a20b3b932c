// The `openai` package as an application uses it.
import OpenAI from "openai";
import { serve, weather } from "./serve.mjs";

const clients = new Map();

// One client a gateway, so that a job runs on the connections that earlier jobs left behind.
function completions({ base_url: baseURL, retries: maxRetries }) {
  const key = `${baseURL} ${maxRetries}`;
  if (!clients.has(key)) clients.set(key, new OpenAI({ baseURL, maxRetries, apiKey: "the-caller", timeout: 30_000 }));
  return clients.get(key).chat.completions;
}

const request = ({ model, prompt }) => ({ model, messages: [{ role: "user", content: prompt }] });

const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "weather", description: "The weather of a city.", parameters } }];

async function ask(job, seen) {
  note(await completions(job).create(request(job)), seen);
}

function note({ choices: [{ message, finish_reason }], usage }, seen) {
  Object.assign(seen, { text: message.content, pieces: 1, finish_reason, usage: usage.total_tokens });
}

async function stream(job, seen) {
  const options = { stream: true, stream_options: { include_usage: true } };
  for await (const { choices, usage } of await completions(job).create({ ...request(job), ...options })) {
    if (usage) seen.usage = usage.total_tokens;
    for (const { delta, finish_reason } of choices) {
      seen.text += delta.content ?? "";
      seen.pieces += delta.content ? 1 : 0;
      seen.finish_reason = finish_reason ?? seen.finish_reason;
    }
  }
}

// The model asks for the tool, gets its result and answers.
async function tool(job, seen) {
  const { messages, ...rest } = request(job);
  const first = await completions(job).create({ ...rest, messages, tools });
  const { message } = first.choices[0];
  messages.push(message);
  for (const { id, function: { name, arguments: text } } of message.tool_calls) {
    seen.tools.push({ name, arguments: JSON.parse(text) });
    messages.push({ role: "tool", tool_call_id: id, content: weather(JSON.parse(text)) });
  }
  note(await completions(job).create({ ...rest, messages, tools }), seen);
}

// The same, streamed, with the SDK's own helper going the whole round.
async function toolStream(job, seen) {
  const run = (args) => {
    seen.tools.push({ name: "weather", arguments: args });
    return weather(args);
  };
  const runnable = { ...tools[0], function: { ...tools[0].function, parse: JSON.parse, function: run } };
  const options = { stream: true, stream_options: { include_usage: true }, tools: [runnable] };
  const runner = completions(job).runTools({ ...request(job), ...options });
  note(await runner.finalChatCompletion(), seen);
}

serve({ ask, stream, tool, "tool-stream": toolStream }, (error) => ({
  status: error.status ?? null,
  code: error.code ?? null,
  retry_after: error.headers?.get("retry-after") ?? null,
}));
