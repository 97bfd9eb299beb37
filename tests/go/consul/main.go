// Registers a service by a Go client of Consul, reports it, watches it and withdraws it.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/armon/consul-api"
)

func check(ok bool, what interface{}) {
	if !ok {
		fmt.Println("not as it should be:", what)
		os.Exit(1)
	}
}

func must(err error) {
	check(err == nil, err)
}

func main() {
	config := consulapi.DefaultConfig()
	config.Address = os.Args[1]
	client, err := consulapi.NewClient(config)
	must(err)
	agent, health := client.Agent(), client.Health()
	must(agent.ServiceRegister(&consulapi.AgentServiceRegistration{
		ID: "go-1", Name: "go_web", Tags: []string{"blue"}, Port: 8080,
		Check: &consulapi.AgentServiceCheck{TTL: "30s"},
	}))
	found, meta, err := health.Service("go_web", "blue", false, nil)
	must(err)
	check(len(found) == 1 && found[0].Service.ID == "go-1" && found[0].Service.Port == 8080, found)
	passing := make(chan int)
	go func() {
		options := &consulapi.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: 20 * time.Second}
		found, newer, err := health.Service("go_web", "", true, options)
		must(err)
		check(newer.LastIndex > meta.LastIndex, newer)
		passing <- len(found)
	}()
	must(agent.PassTTL("service:go-1", "fine"))
	check(<-passing == 1, "the watch")
	must(agent.WarnTTL("service:go-1", "slow"))
	must(agent.FailTTL("service:go-1", "no"))
	critical, _, err := health.State("critical", nil)
	must(err)
	check(len(critical) == 1 && critical[0].Output == "no", critical)
	services, err := agent.Services()
	must(err)
	check(services["go-1"].Service == "go_web", services)
	must(agent.ServiceDeregister("go-1"))
	listed, _, err := client.Catalog().Services(nil)
	must(err)
	check(len(listed) == 0, listed)
	_, _, err = client.KV().Get("a", nil)
	check(err != nil, "a key that cannot be there")
	fmt.Println("well")
}
