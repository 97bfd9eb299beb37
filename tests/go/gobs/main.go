// Makes up types and values, and encodes them with Go's own gob; or decodes what somebody else encoded
// and compares it.
//
//	gobs encode SEED COUNT FOLDER   writes FOLDER/go.gob, and FOLDER/values.txt with a line for each value
//	gobs decode SEED COUNT FOLDER   reads FOLDER/ours.gob into the same types, and prints those lines
package main

import (
	"bufio"
	"bytes"
	"encoding/gob"
	"fmt"
	"log"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Recursive, by pointer, by slice and by map.
type Tree struct {
	Label string
	Left  *Tree
	Right *Tree
}

type Forest struct {
	Trees  []Tree
	Inside map[string]Forest
	Deeper []*Forest
}

type Any struct {
	One  interface{}
	Many []interface{}
}

type Embedded struct {
	Tree
	When time.Time
	Same *time.Time
}

type Named int16

type Blob []byte

var fixed = []reflect.Type{
	reflect.TypeOf(Tree{}), reflect.TypeOf(Forest{}), reflect.TypeOf(Any{}),
	reflect.TypeOf(Embedded{}), reflect.TypeOf(Named(0)), reflect.TypeOf(Blob{}),
	reflect.TypeOf(time.Time{}),
}

var scalars = []reflect.Type{
	reflect.TypeOf(false), reflect.TypeOf(int(0)), reflect.TypeOf(int8(0)), reflect.TypeOf(int64(0)),
	reflect.TypeOf(uint(0)), reflect.TypeOf(uint8(0)), reflect.TypeOf(uint32(0)),
	reflect.TypeOf(uint64(0)), reflect.TypeOf(float32(0)), reflect.TypeOf(float64(0)),
	reflect.TypeOf(complex64(0)), reflect.TypeOf(complex128(0)), reflect.TypeOf(""),
}

// A type. Only a map's key has to be comparable.
func makeType(random *rand.Rand, depth int) reflect.Type {
	kind := random.Intn(10)
	if depth == 0 {
		kind = 0
	}
	switch kind {
	case 1:
		return reflect.SliceOf(makeType(random, depth-1))
	case 2:
		return reflect.ArrayOf(1+random.Intn(3), makeType(random, depth-1))
	case 3:
		return reflect.MapOf(makeKey(random), makeType(random, depth-1))
	case 4, 5, 6:
		count := 1 + random.Intn(5)
		fields := make([]reflect.StructField, count)
		for n := range fields {
			ty := makeType(random, depth-1)
			if random.Intn(4) == 0 {
				ty = reflect.PtrTo(ty)
			}
			fields[n] = reflect.StructField{Name: "F" + strconv.Itoa(n), Type: ty}
		}
		return reflect.StructOf(fields)
	case 7:
		return fixed[random.Intn(len(fixed))]
	default:
		return scalars[random.Intn(len(scalars))]
	}
}

func makeKey(random *rand.Rand) reflect.Type {
	for {
		ty := scalars[random.Intn(len(scalars))]
		if ty.Kind() != reflect.Complex64 && ty.Kind() != reflect.Complex128 {
			return ty
		}
	}
}

// Numbers at the edges come up often, and zero too.
func number(random *rand.Rand) uint64 {
	switch random.Intn(5) {
	case 0:
		return 0
	case 1:
		return math.MaxUint64 - uint64(random.Intn(3))
	case 2:
		return uint64(1)<<uint(random.Intn(64)) - uint64(random.Intn(2))
	default:
		return uint64(random.Intn(300))
	}
}

func text(random *rand.Rand) string {
	bytes := make([]byte, random.Intn(5)*random.Intn(60))
	random.Read(bytes)
	return string(bytes)
}

func fill(random *rand.Rand, value reflect.Value, depth int) {
	ty := value.Type()
	if ty == reflect.TypeOf(time.Time{}) {
		value.Set(reflect.ValueOf(time.Unix(random.Int63n(1<<32), random.Int63n(1e9)).UTC()))
		return
	}
	few := random.Intn(4)
	if depth <= 0 {
		few = 0
	}
	switch ty.Kind() {
	case reflect.Bool:
		value.SetBool(random.Intn(2) == 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		value.SetInt(int64(number(random)) >> uint(64-ty.Bits()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		value.SetUint(number(random) >> uint(64-ty.Bits()))
	case reflect.Float32, reflect.Float64:
		value.SetFloat(random.NormFloat64() * float64(random.Intn(3)))
	case reflect.Complex64, reflect.Complex128:
		value.SetComplex(complex(random.NormFloat64(), float64(random.Intn(2))))
	case reflect.String:
		value.SetString(text(random))
	case reflect.Slice:
		if ty.Elem().Kind() == reflect.Uint8 {
			value.SetBytes([]byte(text(random)))
			return
		}
		value.Set(reflect.MakeSlice(ty, few, few))
		for n := 0; n < few; n++ {
			fill(random, value.Index(n), depth-1)
		}
	case reflect.Array:
		for n := 0; n < ty.Len(); n++ {
			fill(random, value.Index(n), depth-1)
		}
	case reflect.Map:
		if random.Intn(4) == 0 {
			return
		}
		value.Set(reflect.MakeMap(ty))
		for n := 0; n < few; n++ {
			key, element := reflect.New(ty.Key()).Elem(), reflect.New(ty.Elem()).Elem()
			fill(random, key, depth-1)
			fill(random, element, depth-1)
			value.SetMapIndex(key, element)
		}
	case reflect.Struct:
		for n := 0; n < ty.NumField(); n++ {
			field := value.Field(n)
			// Only where a field may be nil does a recursion end.
			if field.Kind() == reflect.Ptr && few == 0 {
				continue
			}
			fill(random, field, depth-1)
		}
	case reflect.Ptr:
		value.Set(reflect.New(ty.Elem()))
		fill(random, value.Elem(), depth-1)
	case reflect.Interface:
		inside := []interface{}{
			int(random.Intn(1000)), text(random), []int{1, random.Intn(9)}, true, 0.5,
			Tree{Label: text(random)}, map[string]int{text(random): 7}, Named(3),
		}
		if few > 0 {
			value.Set(reflect.ValueOf(inside[random.Intn(len(inside))]))
		}
	}
}

// Whether gob sends a field.
func isSent(value reflect.Value) bool {
	switch value.Kind() {
	case reflect.Ptr:
		return !value.IsNil() && isSent(value.Elem())
	case reflect.Interface, reflect.Map:
		return !value.IsNil()
	case reflect.Slice, reflect.String:
		return value.Len() > 0
	case reflect.Struct, reflect.Array:
		return true
	case reflect.Float32, reflect.Float64:
		// A negative zero is left out too.
		return value.Float() != 0
	case reflect.Complex64, reflect.Complex128:
		return value.Complex() != 0
	default:
		return !value.IsZero()
	}
}

// The value as gob has it, in a notation that the other side writes too.
func write(out *strings.Builder, value reflect.Value) {
	if now, ok := value.Interface().(time.Time); ok {
		bytes, err := now.MarshalBinary()
		must(err)
		fmt.Fprintf(out, "o%x", bytes)
		return
	}
	bits := math.Float64bits
	switch value.Kind() {
	case reflect.Bool:
		fmt.Fprintf(out, "%t", value.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		fmt.Fprintf(out, "i%d", value.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		fmt.Fprintf(out, "u%d", value.Uint())
	case reflect.Float32, reflect.Float64:
		fmt.Fprintf(out, "f%x", bits(value.Float()))
	case reflect.Complex64, reflect.Complex128:
		fmt.Fprintf(out, "c%x,%x", bits(real(value.Complex())), bits(imag(value.Complex())))
	case reflect.String:
		fmt.Fprintf(out, "s%x", value.String())
	case reflect.Ptr:
		write(out, value.Elem())
	case reflect.Interface:
		if value.IsNil() {
			out.WriteString("nil")
			return
		}
		// Basic types have their own names; others have what gob.Register gives them.
		fmt.Fprintf(out, "<%s ", value.Elem().Type().String())
		write(out, value.Elem())
		out.WriteString(">")
	case reflect.Slice, reflect.Array:
		if value.Kind() == reflect.Slice && value.Type().Elem().Kind() == reflect.Uint8 {
			fmt.Fprintf(out, "b%x", value.Bytes())
			return
		}
		out.WriteString("[")
		for n := 0; n < value.Len(); n++ {
			write(out, value.Index(n))
			out.WriteString(" ")
		}
		out.WriteString("]")
	case reflect.Map:
		var pairs []string
		for _, key := range value.MapKeys() {
			var pair strings.Builder
			write(&pair, key)
			pair.WriteString(":")
			write(&pair, value.MapIndex(key))
			pairs = append(pairs, pair.String())
		}
		sort.Strings(pairs)
		fmt.Fprintf(out, "{%s}", strings.Join(pairs, " "))
	case reflect.Struct:
		out.WriteString("(")
		for n := 0; n < value.NumField(); n++ {
			if field := value.Field(n); isSent(field) {
				fmt.Fprintf(out, "%s=", value.Type().Field(n).Name)
				write(out, field)
				out.WriteString(" ")
			}
		}
		out.WriteString(")")
	default:
		log.Fatal("no notation for ", value.Kind())
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 5 {
		log.Fatal("usage: gobs encode|decode SEED COUNT FOLDER")
	}
	for _, value := range []interface{}{[]int{}, Tree{}, map[string]int{}, Named(0)} {
		gob.Register(value)
	}
	seed, err := strconv.ParseInt(os.Args[2], 10, 64)
	must(err)
	count, err := strconv.Atoi(os.Args[3])
	must(err)
	folder := os.Args[4]
	types := rand.New(rand.NewSource(seed))
	values := rand.New(rand.NewSource(seed + 1))
	lines := func(out *bufio.Writer, value reflect.Value) {
		var line strings.Builder
		write(&line, value)
		fmt.Fprintln(out, line.String())
	}
	if os.Args[1] == "encode" {
		var stream bytes.Buffer
		encoder := gob.NewEncoder(&stream)
		text, err := os.Create(filepath.Join(folder, "values.txt"))
		must(err)
		out := bufio.NewWriter(text)
		for n := 0; n < count; n++ {
			value := reflect.New(makeType(types, 4)).Elem()
			fill(values, value, 5)
			must(encoder.EncodeValue(value))
			lines(out, value)
		}
		must(out.Flush())
		must(os.WriteFile(filepath.Join(folder, "go.gob"), stream.Bytes(), 0o600))
		return
	}
	stream, err := os.Open(filepath.Join(folder, "ours.gob"))
	must(err)
	decoder := gob.NewDecoder(bufio.NewReader(stream))
	out := bufio.NewWriter(os.Stdout)
	for n := 0; n < count; n++ {
		value := reflect.New(makeType(types, 4)).Elem()
		if err := decoder.DecodeValue(value); err != nil {
			log.Fatalf("value %d of type %s: %v", n, value.Type(), err)
		}
		lines(out, value)
	}
	must(out.Flush())
}
