"""Lists the tools of a host and calls them with the official SDK, in the revision that an argument names.

The SDK itself checks each structured result against the tool's output schema.
"""

import asyncio
import sys

from mcp import Client
from mcp.shared.exceptions import MCPError

HOST, MODE, SPOKEN = sys.argv[1:4]


def check(what, expected):
    if what != expected:
        sys.exit(f"{MODE}: expected {expected!r}, got {what!r}")


async def run():
    async with Client(f"http://{HOST}/mcp", mode=MODE) as client:
        check(str(client.protocol_version), SPOKEN)
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        check(list(tools), sorted(tools))
        check([name for name in tools if name.startswith("arith")], ["arith_divide", "arith_multiply"])
        recase = tools["textkit_recase"]
        check(recase.description, "The text with its letters in another case.")
        check(recase.input_schema["type"], "object")
        check(recase.input_schema["required"], ["text", "to"])
        for tool in tools.values():
            check(tool.input_schema["type"], "object")
            check("oneOf" in tool.input_schema, False)
            if tool.output_schema is not None:
                check(tool.output_schema["type"], "object")

        async def call(tool, /, **arguments):
            result = await client.call_tool(tool, arguments)
            if result.is_error:
                sys.exit(f"{MODE}: {tool}: {result.content[0].text}")
            return result.structured_content

        # Beyond 2^53, where a float would lose digits.
        large = await call("arith_multiply", a="9007199254740993", b="3")
        check(large, {"result": "27021597764222979"})
        check(await call("arith_multiply", a=7, b=8), {"result": "56"})
        check(await call("arith_divide", a=17, b=5), {"quo": "3", "rem": "2"})
        check(await call("textkit_recase", text="ab", to="upper"), {"result": "AB"})
        check(
            await call("textkit_tokenize", text="ab 12 !"),
            {"result": [{"word": "ab"}, {"number": "12"}, {"mark": "!"}]},
        )
        check(await call("textkit_word-counts", text="b a b"), {"result": [["b", 2], ["a", 1]]})
        figures = await call("textkit_analyze", text="")
        check((figures["longestWord"], figures["words"]), (None, "0"))
        numbers = {
            "a": True, "b": 255, "c": 1, "d": 4294967295, "e": "18446744073709551615", "f": -1,
            "g": -1, "h": -1, "i": "-9223372036854775808", "j": "NaN", "k": 0.5, "l": "ü",
        }
        check(await call("zoo_give-numbers", **numbers), numbers)
        nested = {
            "name": "n", "blob": "AAE=", "blobs": ["", "AA=="], "points": [{"x": 1, "y": 2}],
            "maybe": {"some": None}, "pair": ["a", [1, "b"]], "outcome": {"err": "nothing"},
            "type": [["1", None], ["2", "x"]],
        }
        check(await call("zoo_give-nested", **nested), nested)
        check(await call("zoo_give-shape", x={"circle": 1.5}), {"result": {"circle": 1.5}})
        check(await call("zoo_give-option", x=None), {"result": None})
        check((await client.call_tool("zoo_nothing", {})).content[0].text, "done")

        # What a model can mend by itself is a result.
        own = await client.call_tool("arith_divide", {"a": 1, "b": 0})
        check((own.is_error, own.content[0].text), (True, '"divide-by-zero"'))
        wrong = await client.call_tool("textkit_recase", {"text": "ab", "to": "sideways"})
        check(wrong.is_error, True)
        check("sideways" in wrong.content[0].text, True)
        try:
            await client.call_tool("textkit_explode", {})
            sys.exit(f"{MODE}: a tool that is none was called")
        except MCPError as error:
            check((error.error.code, error.error.message[:14]), (-32602, "there is no to"))
    print("all tools answered")


asyncio.run(run())
