"""`python agent.py URL KEY`: an agent of LangChain uses our tools over MCP, in its environment.

Its model is a script: it searches, and then reads the first result. It writes JSON: the names of the tools that it was
given, and what the tools said. Runs without our packages.
"""

import asyncio
import json
import sys
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_mcp_adapters.client import MultiServerMCPClient


class ScriptedModel(BaseChatModel):
    """Searches, fetches what it has found first, and answers with that."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        said = [_text(message) for message in messages if isinstance(message, ToolMessage)]
        if not said:
            reply = _call("search", query="When does dental cover start?", collection="shelf", limit=1)
        elif len(said) == 1:
            reply = _call("fetch", id=json.loads(said[0])["results"][0]["id"])
        else:
            reply = AIMessage(json.loads(said[1])["text"])
        return ChatResult(generations=[ChatGeneration(message=reply)])


def _call(name: str, **arguments: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": name}])


def _text(message: BaseMessage) -> str:
    content = message.content
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


async def main(url: str, key: str) -> None:
    """The agent's run."""
    headers = {"Authorization": f"Bearer {key}"}
    server = {"transport": "streamable_http", "url": f"{url}/mcp", "headers": headers}
    tools = await MultiServerMCPClient({"winnow": server}).get_tools()
    agent = create_agent(ScriptedModel(), tools)
    ended = await agent.ainvoke({"messages": [("user", "When does dental cover start?")]})
    answer = _text(ended["messages"][-1])
    sys.stdout.write(json.dumps({"tools": [tool.name for tool in tools], "answer": answer}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
