// Calls Wharf as Go programs do: with net/rpc and net/rpc/jsonrpc, and no code of Wharf's.
//
// The first argument names what to do, the second is the address of a host. It ends with an error if
// anything is not as it should be.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"
)

type Args struct{ A, B int }

type Quotient struct{ Quo, Rem int }

var cases = map[string]func(address string){
	"sketch":   sketch,
	"http":     overHTTP,
	"errors":   errors,
	"flight":   flight,
	"slow":     slow,
	"textkit":  textkit,
	"zoo":      zoo,
	"integers": integers,
	"json":     json,
	"drain":    drain,
}

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 || cases[os.Args[1]] == nil {
		log.Fatal("usage: doors CASE ADDRESS")
	}
	cases[os.Args[1]](os.Args[2])
	fmt.Println("ok")
}

func must(err error) {
	if err != nil {
		log.Fatal("failed: ", err)
	}
}

func dial(address string) *rpc.Client {
	client, err := rpc.Dial("tcp", address)
	must(err)
	return client
}

func same(what string, got, want interface{}) {
	if !reflect.DeepEqual(got, want) {
		log.Fatalf("%s: got %#v, want %#v", what, got, want)
	}
}

func fails(err error, want string) {
	if err == nil || err.Error() != want {
		log.Fatalf("got the error %v, want %s", err, want)
	}
}

// The classic sketch: the address comes from the registry's /services.
func sketch(registry string) {
	response, err := http.Get(registry + "/services")
	must(err)
	body, err := io.ReadAll(response.Body)
	must(err)
	address := os.Args[3]
	if !strings.Contains(string(body), address) {
		log.Fatalf("/services does not name %s: %s", address, body)
	}
	client := dial(address)
	var product int
	must(client.Call("Arith.Multiply", &Args{7, 8}, &product))
	same("7 * 8", product, 56)
	var quotient Quotient
	must(client.Call("Arith.Divide", &Args{17, 5}, &quotient))
	same("17 / 5", quotient, Quotient{3, 2})
	fails(client.Call("Arith.Divide", &Args{7, 0}, &quotient), "divide-by-zero")
	// The zero overwrites what was there.
	product = 7
	must(client.Call("Arith.Multiply", &Args{0, 8}, &product))
	same("0 * 8", product, 0)
	quotient = Quotient{9, 9}
	must(client.Call("Arith.Divide", &Args{0, 5}, &quotient))
	same("0 / 5", quotient, Quotient{0, 0})
	must(client.Close())
}

func overHTTP(address string) {
	client, err := rpc.DialHTTP("tcp", address)
	must(err)
	var product int
	must(client.Call("Arith.Multiply", Args{7, 8}, &product))
	same("7 * 8", product, 56)
}

func errors(address string) {
	client := dial(address)
	var product int
	fails(client.Call("Arit.Multiply", Args{7, 8}, &product), "rpc: can't find service Arit.Multiply")
	fails(client.Call("Arith.Add", Args{7, 8}, &product), "rpc: can't find method Arith.Add")
	fails(client.Call("Arith", Args{7, 8}, &product), "rpc: service/method request ill-formed: Arith")
	err := client.Call("Arith.Multiply", struct{ A string }{"x"}, &product)
	fails(err, "wharf: INVALID_ARGUMENT: Arith.Multiply: args.a: expected s64, found string")
	err = client.Call("Arith.Multiply", struct{ A int }{1}, &product)
	fails(err, "wharf: INVALID_ARGUMENT: Arith.Multiply: args.b: the struct has no such field (s64)")
	err = client.Call("Textkit.Recase", struct{ Text, To string }{"x", "sideways"}, &product)
	if err == nil || !strings.Contains(err.Error(), "to: expected enum { lower, upper, title }, found sideways") {
		log.Fatal("got ", err)
	}
	// The connection goes on.
	must(client.Call("Arith.Multiply", Args{7, 8}, &product))
	same("7 * 8", product, 56)
}

func flight(address string) {
	client := dial(address)
	const calls = 1000
	products := make([]int, calls)
	done := make(chan *rpc.Call, calls)
	for n := range products {
		client.Go("Arith.Multiply", &Args{n, n}, &products[n], done)
	}
	for range products {
		must((<-done).Error)
	}
	for n, product := range products {
		same("a square", product, n*n)
	}
	// And many callers at once, with large values between small ones.
	var group sync.WaitGroup
	for caller := 0; caller < 8; caller++ {
		group.Add(1)
		go func(caller int) {
			defer group.Done()
			data := make([]byte, 300_000)
			for n := range data {
				data[n] = byte(n * caller)
			}
			var back []byte
			must(client.Call("Textkit.Echo", data, &back))
			same("a large value", back, data)
			var product int
			must(client.Call("Arith.Multiply", &Args{caller, 2}, &product))
			same("a product", product, caller*2)
		}(caller)
	}
	group.Wait()
}

func slow(address string) {
	client := dial(address)
	slow := client.Go("Rogue.Compute", uint64(1000), new(uint64), nil)
	var count uint32
	for n := 0; n < 10; n++ {
		must(client.Call("Rogue.Count", struct{}{}, &count))
		select {
		case <-slow.Done:
			log.Fatal("the slow call held up the quick ones")
		default:
		}
	}
	must((<-slow.Done).Error)
	// A guest that traps ends its call, and not the connection.
	err := client.Call("Rogue.Panic", "a message", &struct{}{})
	if err == nil || !strings.HasPrefix(err.Error(), "wharf: INTERNAL: ") {
		log.Fatal("got ", err)
	}
	must(client.Call("Rogue.Count", 0, &count))
}

type Statistics struct {
	Bytes, Chars, Words, Lines uint64
	LongestWord                *string
	WordsPerLine               float64
}

type Span struct{ Start, End, Line uint32 }

type Token struct {
	Tag    string
	Word   *string
	Number *int64
	Mark   *rune
}

func textkit(address string) {
	client := dial(address)
	var statistics Statistics
	must(client.Call("Textkit.Analyze", "one two\nthree", &statistics))
	longest := "three"
	same("figures", statistics, Statistics{13, 13, 3, 2, &longest, 1.5})
	statistics = Statistics{}
	must(client.Call("Textkit.Analyze", "", &statistics))
	same("an absent option", statistics.LongestWord, (*string)(nil))

	var counts []struct {
		F0 string
		F1 uint32
	}
	most := uint32(1)
	arguments := struct {
		Text   string
		AtMost *uint32
	}{"b a b", &most}
	must(client.Call("Textkit.WordCounts", arguments, &counts))
	same("counts", fmt.Sprint(counts), "[{b 2}]")
	arguments.AtMost = nil
	must(client.Call("Textkit.WordCounts", arguments, &counts))
	same("counts", fmt.Sprint(counts), "[{b 2} {a 1}]")
	must(client.Call("Textkit.WordCounts", struct{ Text string }{"x"}, &counts))
	same("counts", fmt.Sprint(counts), "[{x 1}]")

	var spans []Span
	find := struct {
		Haystack, Needle string
		Options          uint8
	}{"Ab ab", "ab", 1}
	must(client.Call("Textkit.Find", find, &spans))
	same("places", spans, []Span{{0, 2, 1}, {3, 5, 1}})
	named := struct {
		Haystack, Needle string
		Options          []string
	}{"Ab ab", "ab", []string{"IgnoreCase", "whole-words"}}
	must(client.Call("Textkit.Find", named, &spans))
	same("places", len(spans), 2)

	var tokens []Token
	must(client.Call("Textkit.Tokenize", "ab 12!", &tokens))
	word, number, mark := "ab", int64(12), '!'
	same("tokens", tokens, []Token{{"word", &word, nil, nil}, {"number", nil, &number, nil}, {"mark", nil, nil, &mark}})

	var text string
	recase := struct {
		Text string
		To   int
	}{"ab", 1}
	must(client.Call("Textkit.Recase", recase, &text))
	same("by number", text, "AB")
	must(client.Call("Textkit.Recase", struct{ Text, To string }{"ab cd", "Title"}, &text))
	same("by name", text, "Ab Cd")

	var sum uint32
	must(client.Call("Textkit.Checksum", []byte("123456789"), &sum))
	same("the sum", sum, uint32(0xcbf43926))
	decode := struct{ Text, Using string }{"zz", "hex"}
	var bytes []byte
	err := client.Call("Textkit.Decode", decode, &bytes)
	fails(err, `{"bad-character":["z",0]}`)
	must(client.Call("Textkit.Decode", struct{ Text, Using string }{"00ff", "hex"}, &bytes))
	same("bytes", bytes, []byte{0, 255})
	var anything interface{} = "through an interface"
	must(client.Call("Textkit.Echo", []byte(anything.(string)), &bytes))
	same("bytes", string(bytes), anything)
}

type Numbers struct {
	A bool
	B uint8
	C uint16
	D uint32
	E uint64
	F int8
	G int16
	H int32
	I int64
	J float32
	K float64
	L rune
}

type Point struct{ X, Y float32 }

type Shape struct {
	Tag     string
	Circle  *float64
	Polygon []Point
	Named   *string
}

type Outcome struct {
	Tag string
	Ok  []string
	Err *Shape
}

type Pair struct {
	F0 string
	F1 struct {
		F0 uint8
		F1 rune
	}
}

type Typed struct {
	F0 uint64
	F1 *string
}

type Nested struct {
	Name    string
	Blob    []byte
	Blobs   [][]byte
	Points  []Point
	Maybe   *uint32
	Pair    Pair
	Outcome Outcome
	Type    []Typed
}

func zoo(address string) {
	client := dial(address)
	for _, numbers := range []Numbers{
		{true, 255, 65535, 1<<32 - 1, 1<<64 - 1, -128, -32768, -1 << 31, -1 << 63, 1.5, -2.5e300, '€'},
		{false, 0, 0, 0, 0, 127, 32767, 1<<31 - 1, 1<<63 - 1, 0, 0, 0},
	} {
		back := Numbers{B: 9, E: 9, K: 9}
		must(client.Call("Zoo.GiveNumbers", numbers, &back))
		same("numbers", back, numbers)
	}
	name, circle, maybe := "a name", 0.0, uint32(0)
	shapes := []Shape{
		{Tag: "nothing"},
		{Tag: "circle", Circle: &circle},
		{Tag: "polygon", Polygon: []Point{{1, 2}, {0, 0}}},
		{Tag: "named", Named: &name},
	}
	// Go leaves out zeros behind pointers too, so a circle of 0 comes as nil, and is 0 again.
	for _, shape := range shapes {
		var back Shape
		must(client.Call("Zoo.GiveShape", shape, &back))
		same("a shape", back, shape)
	}
	pair := Pair{F0: "x"}
	pair.F1.F0, pair.F1.F1 = 7, 'y'
	nested := Nested{
		"n", []byte{1, 2}, [][]byte{{3}, {4, 5}}, []Point{{1, 2}}, nil, pair,
		Outcome{Tag: "err", Err: &shapes[3]}, []Typed{{1, &name}, {2, nil}},
	}
	var back Nested
	must(client.Call("Zoo.GiveNested", nested, &back))
	same("a nested value", back, nested)
	maybe = 5
	nested.Maybe, nested.Outcome = &maybe, Outcome{Tag: "ok", Ok: []string{"a", ""}}
	back = Nested{}
	must(client.Call("Zoo.GiveNested", nested, &back))
	same("a nested value", back, nested)
	var list []Nested
	must(client.Call("Zoo.GiveList", []Nested{nested, nested}, &list))
	same("a list", list, []Nested{nested, nested})
	must(client.Call("Zoo.GiveList", []Nested{}, &list))
	same("an empty list", len(list), 0)

	var color int
	must(client.Call("Zoo.GiveColor", 2, &color))
	same("a color", color, 2)
	var word string
	must(client.Call("Zoo.GiveColor", "DarkBlue", &word))
	same("a color's name", word, "dark-blue")
	var few uint8
	must(client.Call("Zoo.GiveFew", uint8(5), &few))
	same("flags", few, uint8(5))
	var many int
	must(client.Call("Zoo.GiveMany", 1<<31, &many))
	same("flags as int", many, 1<<31)
	err := client.Call("Zoo.GiveFew", uint8(8), &few)
	if err == nil || !strings.Contains(err.Error(), "flags { a, b, c }, found 0x8") {
		log.Fatal("got ", err)
	}
	var tuple struct {
		F0 int8
		F1 string
	}
	tuple.F0, tuple.F1 = -3, "t"
	given := tuple
	must(client.Call("Zoo.GiveTuple", given, &tuple))
	same("a tuple", tuple, given)

	result := struct {
		Tag string
		Ok  *string
		Err *Shape
	}{Tag: "err", Err: &shapes[3]}
	fails(client.Call("Zoo.GiveResult", result, &word), `{"named":"a name"}`)
	result.Tag, result.Ok = "ok", &name
	must(client.Call("Zoo.GiveResult", result, &word))
	same("an Ok", word, name)
	fails(client.Call("Zoo.MayFail", true, &struct{}{}), "the call failed, and says no more")
	must(client.Call("Zoo.MayFail", false, &struct{}{}))
	must(client.Call("Zoo.Nothing", struct{}{}, &struct{}{}))
}

func integers(address string) {
	client := dial(address)
	// int everywhere, though WIT says u64.
	var sum int
	all := struct {
		A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q int
		Type                                              string
	}{A: 1, Q: 2, Type: "abc"}
	must(client.Call("Zoo.Sum", all, &sum))
	same("a sum of ints", sum, 6)
	// uint everywhere, though WIT says s64.
	var product uint
	must(client.Call("Arith.Multiply", struct{ A, B uint }{7, 8}, &product))
	same("a product of uints", product, uint(56))
	// What does not fit is an error, and the connection goes on.
	all.A = -1
	err := client.Call("Zoo.Sum", all, &sum)
	if err == nil || !strings.Contains(err.Error(), "a: expected u64, found -1") {
		log.Fatal("got ", err)
	}
	must(client.Call("Arith.Multiply", Args{-7, 8}, &sum))
	same("a product", sum, -56)
	// Go leaves zeros out, so only the types tell.
	product, sum = 7, 7
	must(client.Call("Arith.Multiply", struct{ A, B uint }{0, 0}, &product))
	same("a product of zeros", product, uint(0))
	all.A, all.Q, all.Type = 0, 0, ""
	must(client.Call("Zoo.Sum", all, &sum))
	same("a sum of zeros", sum, 0)
	var shape struct{ Tag uint8 }
	must(client.Call("Zoo.GiveShape", struct{ Tag uint8 }{0}, &shape))
	same("the first case", shape.Tag, uint8(0))
	var color int
	err = client.Call("Textkit.Recase", struct{ Text, To string }{"x", ""}, new(string))
	if err == nil || !strings.Contains(err.Error(), "found an empty text") {
		log.Fatal("got ", err)
	}
	must(client.Call("Zoo.GiveColor", 1, &color))
	same("a color", color, 1)
}

func json(address string) {
	client, err := jsonrpc.Dial("tcp", address)
	must(err)
	var product int64
	must(client.Call("Arith.Multiply", Args{7, 8}, &product))
	same("7 * 8", product, int64(56))
	must(client.Call("Arith.Multiply", struct{ A, B int64 }{1 << 62, 1}, &product))
	same("a large product", product, int64(1)<<62)
	var quotient Quotient
	must(client.Call("Arith.Divide", &Args{17, 5}, &quotient))
	same("17 / 5", quotient, Quotient{3, 2})
	fails(client.Call("Arith.Divide", &Args{7, 0}, &quotient), "divide-by-zero")
	fails(client.Call("Arit.Multiply", Args{}, &product), "rpc: can't find service Arit.Multiply")
	var nothing struct{}
	must(client.Call("Zoo.Nothing", struct{}{}, &nothing))
	var option []byte
	must(client.Call("Zoo.GiveOption", nil, &option))
	done := make(chan *rpc.Call, 500)
	for n := 0; n < 500; n++ {
		client.Go("Arith.Multiply", &Args{n, 2}, new(int), done)
	}
	for n := 0; n < 500; n++ {
		call := <-done
		must(call.Error)
		same("a product", *call.Reply.(*int), call.Args.(*Args).A*2)
	}
}

// A call that runs when the host is told to stop is still answered; then the connection ends.
func drain(address string) {
	client := dial(address)
	slow := client.Go("Rogue.Compute", uint64(1500), new(uint64), nil)
	fmt.Println("begun")
	must((<-slow.Done).Error)
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		if err := client.Call("Rogue.Count", 0, new(uint32)); err != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	log.Fatal("the connection was not ended")
}
