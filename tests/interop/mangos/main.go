// Talks to a node through mangos: main URL. Protobuf by hand, so that SP alone is under test.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"go.nanomsg.org/mangos/v3"
	"go.nanomsg.org/mangos/v3/protocol/req"
	_ "go.nanomsg.org/mangos/v3/transport/tcp"
)

const (
	command = 0
	status  = 6
	ping    = 7
)

func number(out []byte, field int, value uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(out, uint64(field)<<3), value)
}

func text(out []byte, field int, value []byte) []byte {
	out = binary.AppendUvarint(out, uint64(field)<<3|2)
	return append(binary.AppendUvarint(out, uint64(len(value))), value...)
}

func call(id uint64, kind uint64, entity, name, payload, commandID string) []byte {
	out := number(nil, 1, id)
	out = text(out, 2, []byte("account"))
	out = text(out, 3, []byte(entity))
	out = text(out, 4, []byte(name))
	out = text(out, 5, []byte(payload))
	out = text(out, 6, []byte(commandID))
	out = number(out, 8, kind)
	return number(out, 9, 1) // JSON
}

// fields of one message: numbers and the last bytes of each field.
func fields(data []byte) (numbers map[int]uint64, runs map[int][][]byte) {
	numbers, runs = map[int]uint64{}, map[int][][]byte{}
	for len(data) > 0 {
		tag, n := binary.Uvarint(data)
		data = data[n:]
		value, n := binary.Uvarint(data)
		data = data[n:]
		if tag&7 == 2 {
			runs[int(tag>>3)] = append(runs[int(tag>>3)], data[:value])
			data = data[value:]
		} else {
			numbers[int(tag>>3)] = value
		}
	}
	return numbers, runs
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "mangos:", err)
		os.Exit(1)
	}
}

func want(ok bool, what string) {
	if !ok {
		check(fmt.Errorf("%s", what))
	}
}

func exchange(socket mangos.Context, calls ...[]byte) [][]byte {
	var batch []byte
	for _, one := range calls {
		batch = text(batch, 1, one)
	}
	check(socket.Send(batch))
	reply, err := socket.Recv()
	check(err)
	_, runs := fields(reply)
	want(len(runs[1]) == len(calls), "every call is answered")
	return runs[1]
}

func main() {
	socket, err := req.NewSocket()
	check(err)
	check(socket.SetOption(mangos.OptionRetryTime, time.Duration(0)))
	check(socket.Dial(os.Args[1]))
	context, err := socket.OpenContext()
	check(err)
	check(context.SetOption(mangos.OptionRecvDeadline, 10*time.Second))

	entity := fmt.Sprintf("mangos-%d", time.Now().UnixNano())
	answers := exchange(context,
		call(1, ping, "", "", "", ""),
		call(2, command, entity, "Open", "{}", entity+"-open"))
	numbers, _ := fields(answers[0])
	want(numbers[1] == 1 && numbers[2] == 0, "ping is answered")
	numbers, runs := fields(answers[1])
	want(numbers[1] == 2 && numbers[2] == 0 && numbers[5] == 1, fmt.Sprintf("open: %v %q", numbers, runs[7]))

	again, _ := fields(exchange(context, call(3, command, entity, "Open", "{}", entity+"-open"))[0])
	want(again[2] == 0 && again[5] == 1 && again[11] == 1, "a repeat gets the first answer")

	_, runs = fields(exchange(context, call(4, status, "", "", "", ""))[0])
	want(len(runs[6]) == 1 && bytes.HasPrefix(runs[6][0], []byte("{")), "status is JSON")

	// 64 contexts at once.
	done := make(chan error, 64)
	for i := 0; i < 64; i++ {
		go func(i int) {
			own, err := socket.OpenContext()
			if err == nil {
				err = own.SetOption(mangos.OptionRecvDeadline, 10*time.Second)
			}
			for n := 0; err == nil && n < 50; n++ {
				id := uint64(i*1000 + n + 1)
				var reply []byte
				if err = own.Send(text(nil, 1, call(id, ping, "", "", "", ""))); err == nil {
					reply, err = own.Recv()
				}
				if err == nil {
					_, runs := fields(reply)
					numbers, _ := fields(runs[1][0])
					if numbers[1] != id {
						err = fmt.Errorf("context %d: answer %d for call %d", i, numbers[1], id)
					}
				}
			}
			done <- err
		}(i)
	}
	for i := 0; i < 64; i++ {
		check(<-done)
	}
	fmt.Println("mangos: ok")
}
