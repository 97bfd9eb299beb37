// Go's net/rpc. Without an argument it serves, and prints where, until its input ends. With the address of
// such a server it is told one load a line (connections, callers of each, bytes to echo or 0 to multiply,
// milliseconds), and answers each with the calls, the nanoseconds that they took together, and the median
// of one.
package main

import (
	"bufio"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"sort"
	"sync"
	"time"
)

type Args struct{ A, B int64 }

type Arith struct{}

func (Arith) Multiply(args *Args, product *int64) error {
	*product = args.A * args.B
	return nil
}

func (Arith) Echo(payload *[]byte, back *[]byte) error {
	*back = *payload
	return nil
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func call(client *rpc.Client, payload []byte) {
	if payload == nil {
		var product int64
		check(client.Call("Arith.Multiply", &Args{7, 8}, &product))
		if product != 56 {
			panic("a wrong product")
		}
		return
	}
	var back []byte
	check(client.Call("Arith.Echo", &payload, &back))
	if len(back) != len(payload) {
		panic("not what was sent")
	}
}

func run(address string, connections, inFlight, size int, length time.Duration) {
	var payload []byte
	if size > 0 {
		payload = make([]byte, size)
	}
	clients := make([]*rpc.Client, connections)
	for i := range clients {
		client, err := rpc.Dial("tcp", address)
		check(err)
		call(client, payload)
		clients[i] = client
	}
	var all sync.WaitGroup
	latencies := make([][]int64, connections*inFlight)
	// Looking at the clock takes a part of what is measured, where many calls are in flight.
	timedOf := 16
	if inFlight == 1 {
		timedOf = 1
	}
	begun := time.Now()
	for i := range latencies {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			client, before := clients[i%connections], time.Now()
			for before.Sub(begun) < length {
				call(client, payload)
				after := time.Now()
				latencies[i] = append(latencies[i], after.Sub(before).Nanoseconds())
				for more := 1; more < timedOf; more++ {
					call(client, payload)
				}
				before = after
				if timedOf > 1 {
					before = time.Now()
				}
			}
		}(i)
	}
	all.Wait()
	took := time.Since(begun)
	var each []int64
	for _, some := range latencies {
		each = append(each, some...)
	}
	sort.Slice(each, func(i, j int) bool { return each[i] < each[j] })
	fmt.Println(len(each)*timedOf, took.Nanoseconds(), each[len(each)/2])
	for _, client := range clients {
		client.Close()
	}
}

func serve() {
	check(rpc.Register(Arith{}))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println(listener.Addr())
	go rpc.Accept(listener)
	// To the end of the input.
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
	}
}

func main() {
	if len(os.Args) == 1 {
		serve()
		return
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var connections, inFlight, size, milliseconds int
		_, err := fmt.Sscan(lines.Text(), &connections, &inFlight, &size, &milliseconds)
		check(err)
		length := time.Duration(milliseconds) * time.Millisecond
		run(os.Args[1], connections, inFlight, size, length)
	}
}
