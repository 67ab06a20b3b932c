"""Echo Brain: a serverless LLM gateway. `bootstrap` puts the parts together; docs/ and README.md have the map."""

VERSION = "0.1.0"
