"""Calls textkit with the client that openapi-python-client made. Arguments: the address of the host."""

import sys

from generated import Client
from generated.api.arith import arith_divide, arith_multiply
from generated.api.textkit import (
    textkit_analyze,
    textkit_checksum,
    textkit_decode,
    textkit_echo,
    textkit_encode,
    textkit_find,
    textkit_join,
    textkit_recase,
    textkit_tokenize,
    textkit_word_counts,
)
from generated.models import (
    ArithArgs,
    TextkitAnalyzeBody,
    TextkitChecksumBody,
    TextkitDecodeBody,
    TextkitDecodeResponse422,
    TextkitEchoBody,
    TextkitEncodeBody,
    TextkitEncoding,
    TextkitFindBody,
    TextkitJoinBody,
    TextkitLetterCase,
    TextkitRecaseBody,
    TextkitSearchOptionsItem,
    TextkitSpan,
    TextkitStatistics,
    TextkitTokenizeBody,
    TextkitTokenMark,
    TextkitTokenNumber,
    TextkitTokenWord,
    TextkitWordCountsBody,
    WharfFailure,
)

client = Client(base_url=f"http://{sys.argv[1]}", httpx_args={"trust_env": False})


def check(what, expected):
    if what != expected:
        sys.exit(f"expected {expected!r}, got {what!r}")


check(arith_multiply.sync(client=client, body=ArithArgs(a=7, b=8)), 56)
check(arith_multiply.sync(client=client, body=ArithArgs(a=-(2**63), b=1)), -(2**63))
quotient = arith_divide.sync(client=client, body=ArithArgs(a=17, b=5))
check((quotient.quo, quotient.rem), (3, 2))
own = arith_divide.sync_detailed(client=client, body=ArithArgs(a=1, b=0))
check((own.status_code, own.parsed.to_dict()), (422, {"error": "divide-by-zero"}))

check(
    textkit_analyze.sync(client=client, body=TextkitAnalyzeBody(text="one two")),
    TextkitStatistics(bytes_=7, chars=7, words=2, lines=1, words_per_line=2.0, longest_word="one"),
)
empty = textkit_analyze.sync(client=client, body=TextkitAnalyzeBody(text=""))
check(empty.longest_word, None)
counts = TextkitWordCountsBody(text="b a b")
check(textkit_word_counts.sync(client=client, body=counts), [["b", 2], ["a", 1]])
counts = TextkitWordCountsBody(text="b a b", at_most=1)
check(textkit_word_counts.sync(client=client, body=counts), [["b", 2]])
found = TextkitFindBody(
    haystack="Cat cat", needle="CAT", options=[TextkitSearchOptionsItem.IGNORE_CASE]
)
check(
    textkit_find.sync(client=client, body=found),
    [TextkitSpan(start=0, end=3, line=1), TextkitSpan(start=4, end=7, line=1)],
)
check(
    textkit_tokenize.sync(client=client, body=TextkitTokenizeBody(text="ab 12 ü!")),
    [
        TextkitTokenWord(word="ab"),
        TextkitTokenNumber(number=12),
        TextkitTokenWord(word="ü"),
        TextkitTokenMark(mark="!"),
    ],
)
recase = TextkitRecaseBody(text="ab", to=TextkitLetterCase.UPPER)
check(textkit_recase.sync(client=client, body=recase), "AB")
join = TextkitJoinBody(parts=["a", "b"], separator="-")
check(textkit_join.sync(client=client, body=join), "a-b")
encode = TextkitEncodeBody(data="AAEC/w==", using=TextkitEncoding.HEX)
check(textkit_encode.sync(client=client, body=encode), "000102ff")
decode = TextkitDecodeBody(text="000102ff", using=TextkitEncoding.HEX)
check(textkit_decode.sync(client=client, body=decode), "AAEC/w==")
own = textkit_decode.sync(client=client, body=TextkitDecodeBody(text="0z", using=TextkitEncoding.HEX))
check(isinstance(own, TextkitDecodeResponse422), True)
check(own.error.bad_character, ["z", 1])
check(textkit_checksum.sync(client=client, body=TextkitChecksumBody(data="MTIzNDU2Nzg5")), 0xCBF43926)
check(textkit_echo.sync(client=client, body=TextkitEchoBody(data="")), "")

# A failure of the call, not of the method.
refused = textkit_echo.sync_detailed(client=client, body=TextkitEchoBody(data="not base64"))
check(refused.status_code, 400)
check(isinstance(refused.parsed, WharfFailure), True)
check(refused.parsed.code.value, "invalid_argument")
check(refused.parsed.details[0].debug.not_executed, True)
print("all calls answered")
