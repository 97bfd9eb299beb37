// A service as Go programs have always written them: net/rpc, and the classic call that registers it.
// The arguments are the registry's URL, gob or jsonrpc, and the service's name.
package main

import (
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"time"
)

type Calc struct{}

type Args struct{ A, B int }

type Quotient struct{ Quo, Rem int }

func (Calc) Multiply(args *Args, reply *int) error {
	*reply = args.A * args.B
	return nil
}

func (Calc) Divide(args *Args, reply *Quotient) error {
	if args.B == 0 {
		return errors.New("divide by zero")
	}
	*reply = Quotient{args.A / args.B, args.A % args.B}
	return nil
}

type Inner struct {
	Name string
	Big  uint64
	Next *Inner
}

type All struct {
	Flag   bool
	Small  int8
	Size   uint16
	Ratio  float32
	Exact  float64
	Text   string
	Data   []byte
	Names  []string
	Counts map[string]int
	ByID   map[uint32]float64
	Nested Inner
	Maybe  *Inner
	List   []Inner
	Grid   [][]uint
	Pair   [2]int
}

// Echo gives back what it takes.
func (Calc) Echo(all *All, reply *All) error {
	*reply = *all
	return nil
}

func (Calc) Double(number *uint, reply *uint) error {
	*reply = *number * 2
	return nil
}

func (Calc) Halve(number *float64, reply *float64) error {
	*reply = *number / 2
	return nil
}

func (Calc) Total(numbers *map[string]float64, reply *float64) error {
	for _, number := range *numbers {
		*reply += number
	}
	return nil
}

func (Calc) Join(parts *[]string, reply *string) error {
	for _, part := range *parts {
		*reply += part
	}
	return nil
}

func (Calc) Sleep(milliseconds *int, reply *int) error {
	time.Sleep(time.Duration(*milliseconds) * time.Millisecond)
	*reply = *milliseconds
	return nil
}

func (Calc) GetURL(_ *struct{}, reply *string) error {
	*reply = "http://calc"
	return nil
}

func main() {
	log.SetFlags(0)
	registry, proto, name := os.Args[1], os.Args[2], os.Args[3]
	if err := rpc.RegisterName(name, Calc{}); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	address := registry + "/register?name=" + name + "&addr=" + listener.Addr().String()
	if proto != "gob" {
		address += "&proto=" + proto
	}
	response, err := http.Get(address)
	if err != nil || response.StatusCode != 200 {
		log.Fatal("cannot register: ", err, response)
	}
	fmt.Printf("calc: %s\n", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		if proto == "jsonrpc" {
			go jsonrpc.ServeConn(conn)
		} else {
			go rpc.ServeConn(conn)
		}
	}
}
