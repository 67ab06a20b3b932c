// The Vercel AI SDK (`ai` with `@ai-sdk/openai-compatible`) as an application uses it.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, RetryError, generateText, stepCountIs, streamText, tool, wrapLanguageModel } from "ai";
import { z } from "zod";
import { serve, weather } from "./serve.mjs";

// The AI SDK repeats every 5xx and does not know x-should-retry; with this middleware it does.
const obeyShouldRetry = {
  specificationVersion: "v4",
  wrapGenerate: ({ doGenerate }) => doGenerate().catch(mendable),
  wrapStream: ({ doStream }) => doStream().catch(mendable),
};

function mendable(error) {
  if (error.responseHeaders?.["x-should-retry"] !== "false") throw error;
  throw new APICallError({ ...error, message: error.message, cause: error, isRetryable: false });
}

function request({ base_url: baseURL, model, prompt, retries, obey }) {
  const name = "echo-brain";
  const plain = createOpenAICompatible({ name, baseURL, apiKey: "the-caller", includeUsage: true })(model);
  const obedient = wrapLanguageModel({ model: plain, middleware: obeyShouldRetry });
  return { model: obey ? obedient : plain, prompt, maxRetries: retries };
}

async function ask(job, seen) {
  note(await generateText(request(job)), seen);
}

function note({ text, finishReason, totalUsage }, seen) {
  Object.assign(seen, { text, pieces: 1, finish_reason: finishReason, usage: totalUsage.totalTokens });
}

async function stream(job, seen) {
  await follow(streamText({ ...request(job), onError: () => {} }), seen);
}

// Reads the stream to its end: an error is one of its parts and ends nothing by itself.
async function follow({ stream }, seen) {
  let error = null;
  for await (const part of stream) {
    if (part.type === "text-delta") Object.assign(seen, { text: seen.text + part.text, pieces: seen.pieces + 1 });
    if (part.type === "finish") Object.assign(seen, { finish_reason: part.finishReason, usage: part.totalUsage.totalTokens });
    if (part.type === "error") error = part.error;
  }
  if (error) throw error;
}

// The SDK goes the whole round by itself: the model asks for the tool, gets its result and answers.
function withTool(job, seen) {
  const execute = (args) => {
    seen.tools.push({ name: "weather", arguments: args });
    return weather(args);
  };
  const description = "The weather of a city.";
  const tools = { weather: tool({ description, inputSchema: z.object({ city: z.string() }), execute }) };
  return { ...request(job), tools, stopWhen: stepCountIs(3) };
}

async function callTool(job, seen) {
  note(await generateText(withTool(job, seen)), seen);
}

async function toolStream(job, seen) {
  await follow(streamText({ ...withTool(job, seen), onError: () => {} }), seen);
}

serve({ ask, stream, tool: callTool, "tool-stream": toolStream }, (error) => {
  const cause = RetryError.isInstance(error) ? error.lastError : error;
  return {
    status: cause.statusCode ?? null,
    code: cause.data?.error?.code ?? cause.code ?? null,
    retry_after: cause.responseHeaders?.["retry-after"] ?? null,
  };
});
