"""Read, reason and propose; nothing here holds a credential that can change anything."""

import os

# LangGraph reads it when it is first imported: checkpoints may then hold plain values only.
os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")
# LangChain's tracing would send every state, evidence included, to a host on the internet when a
# variable of somebody else's project happens to be set.
for _switch in ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING_V2"):
    os.environ[_switch] = "false"
