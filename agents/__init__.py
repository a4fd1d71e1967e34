"""Read, reason and propose; nothing here holds a credential that can change anything."""

import os

# LangGraph reads it when it is first imported: checkpoints may then hold plain values only.
os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")
