%% actors.erl - the local-message workloads of bench/actors.c on Erlang/OTP.
%%
%% erl +S 2:2 +P 2000000 -noshell -pa DIR -run actors main spread fanin ... -s init stop
%%
%% Plain processes and messages; ask is gen_server:call. Every run checks its counts and is repeated
%% with more messages until it lasts at least a second. One JSON line per workload.

-module(actors).
-behaviour(gen_server).
-export([main/1]).
-export([init/1, handle_call/3, handle_cast/2]).

-define(ENTITIES, 10000).
-define(SPREAD_SENDERS, 4).
-define(FANIN_SENDERS, 10).
-define(PAIRS, 16).
-define(WINDOW, 512).
-define(ACK_EVERY, 256).
-define(IDLE_ACTORS, 300000).
-define(LEAST_SECONDS, 1.0).

main([]) ->
	main(["spread", "fanin", "pingpong", "ask", "spawn", "mem", "mem_hibernated"]);
main(Names) ->
	lists:foreach(fun bench/1, Names).

bench("spread") -> long_enough("spread", fun spread/1, 3000000);
bench("fanin") -> long_enough("fanin", fun fanin/1, 3000000);
bench("pingpong") -> long_enough("pingpong", fun pingpong/1, 2400000);
bench("ask") -> long_enough("ask", fun ask/1, 800000);
bench("spawn") -> long_enough("spawn", fun spawns/1, 1500000);
bench("mem") -> mem("mem", fun() -> entity(0) end);
bench("mem_hibernated") -> mem("mem_hibernated", fun() -> sleeper(0) end).

long_enough(Name, Run, Count) ->
	erlang:garbage_collect(),
	Start = erlang:monotonic_time(),
	Run(Count),
	Seconds = (erlang:monotonic_time() - Start) / erlang:convert_time_unit(1, second, native),
	if
		Seconds >= ?LEAST_SECONDS ->
			print(Name, Count / Seconds / 1.0e6, "M/s", Count, Seconds);
		true ->
			Factor = case Seconds < 0.2 of
				true -> 5;
				false -> ?LEAST_SECONDS / Seconds * 1.2
			end,
			long_enough(Name, Run, trunc(Count * Factor) div 960 * 960)
	end.

print(Name, Value, Unit, Count, Seconds) ->
	io:format("{\"peer\":\"erlang\",\"bench\":\"~s\",\"value\":~.4f,\"unit\":\"~s\",\"count\":~b,"
		"\"seconds\":~.3f}~n", [Name, float(Value), Unit, Count, float(Seconds)]).

check(_, Same, Same) -> ok;
check(Name, Got, Wanted) ->
	io:format(standard_error, "erlang ~s: counted ~p, wanted ~p~n", [Name, Got, Wanted]),
	halt(1).

collect(0, Sum) -> Sum;
collect(Left, Sum) -> receive {sum, Part} -> collect(Left - 1, Sum + Part) end.

await(0) -> ok;
await(Left) -> receive done -> await(Left - 1) end.

stop_all(Pids) -> lists:foreach(fun(Pid) -> exit(Pid, kill) end, Pids).

%% ---- 4 senders to 10,000 processes ----

entity(Sum) ->
	receive
		{msg, Amount, _Seq} -> entity(Sum + Amount);
		{sync, From} -> From ! {sum, Sum}, entity(Sum)
	end.

spread(Messages) ->
	Main = self(),
	Targets = [spawn(fun() -> entity(0) end) || _ <- lists:seq(1, ?ENTITIES)],
	Each = Messages div ?SPREAD_SENDERS,
	[spawn_link(fun() -> spread_sender(Targets, Targets, Each), Main ! done end)
		|| _ <- lists:seq(1, ?SPREAD_SENDERS)],
	await(?SPREAD_SENDERS),
	[Target ! {sync, Main} || Target <- Targets],
	check("spread", collect(?ENTITIES, 0), Each * ?SPREAD_SENDERS),
	stop_all(Targets).

spread_sender(_, _, 0) -> ok;
spread_sender([], All, Left) -> spread_sender(All, All, Left);
spread_sender([Target | Rest], All, Left) ->
	Target ! {msg, 1, Left},
	spread_sender(Rest, All, Left - 1).

%% ---- 10 senders to one process, window 512, an ack for every 256 ----

fanin(Messages) ->
	Main = self(),
	Each = Messages div ?FANIN_SENDERS,
	Sink = spawn_link(fun() -> sink(0, Each * ?FANIN_SENDERS, Main) end),
	Senders = [spawn(fun() -> window_sender(Sink, 0, 0, Each) end)
		|| _ <- lists:seq(1, ?FANIN_SENDERS)],
	await(1),
	unlink(Sink),
	stop_all([Sink | Senders]).

sink(Wanted, Wanted, Main) -> Main ! done;
sink(Sum, Wanted, Main) ->
	receive
		{msg, Amount, Seq, From} when Seq rem ?ACK_EVERY =:= 0 ->
			From ! {ack, Seq},
			sink(Sum + Amount, Wanted, Main);
		{msg, Amount, _, _} ->
			sink(Sum + Amount, Wanted, Main)
	end.

window_sender(_, Count, _, Count) -> ok;
window_sender(Sink, Sent, Acked, Count) when Sent - Acked < ?WINDOW ->
	Sink ! {msg, 1, Sent + 1, self()},
	window_sender(Sink, Sent + 1, Acked, Count);
window_sender(Sink, Sent, _, Count) ->
	receive {ack, Seq} -> window_sender(Sink, Sent, Seq, Count) end.

%% ---- 16 pairs ----

pingpong(Messages) ->
	Main = self(),
	Each = Messages div (2 * ?PAIRS),
	[spawn_link(fun() -> ping(spawn_link(fun pong/0), Each), Main ! done end)
		|| _ <- lists:seq(1, ?PAIRS)],
	await(?PAIRS).

pong() ->
	receive
		{ping, From, Left} -> From ! {pong, Left}, pong();
		stop -> ok
	end.

ping(Partner, 0) -> Partner ! stop;
ping(Partner, Left) ->
	Partner ! {ping, self(), Left},
	receive {pong, Left} -> ping(Partner, Left - 1) end.

ask(Calls) ->
	Main = self(),
	Each = Calls div ?PAIRS,
	[spawn_link(fun() ->
		{ok, Server} = gen_server:start_link(?MODULE, [], []),
		client(Server, 0, Each),
		Main ! done
	end) || _ <- lists:seq(1, ?PAIRS)],
	await(?PAIRS).

client(Server, Count, Count) -> gen_server:stop(Server);
client(Server, Done, Count) ->
	Next = Done + 1,
	Next = gen_server:call(Server, {add, 1}, infinity),
	client(Server, Next, Count).

init([]) -> {ok, 0}.
handle_call({add, Amount}, _From, Sum) -> {reply, Sum + Amount, Sum + Amount}.
handle_cast(_, Sum) -> {noreply, Sum}.

%% ---- spawn, one message, quit ----

spawns(Actors) ->
	Main = self(),
	Each = Actors div 2,
	Lives = counters:new(1, [write_concurrency]),
	[spawn_link(fun() -> spawner(Each, Lives), Main ! done end) || _ <- [1, 2]],
	await(2),
	await_lives(Lives, Each * 2, 0).

spawner(0, _) -> ok;
spawner(Left, Lives) ->
	spawn(fun() -> receive go -> counters:add(Lives, 1, 1) end end) ! go,
	spawner(Left - 1, Lives).

await_lives(Lives, Wanted, Tries) ->
	case counters:get(Lives, 1) of
		Wanted -> ok;
		Got when Tries > 20000 -> check("spawn", Got, Wanted);
		_ -> receive after 1 -> await_lives(Lives, Wanted, Tries + 1) end
	end.

%% ---- memory of an idle process after one message ----

sleeper(Sum) ->
	receive
		{msg, Amount, _} -> erlang:hibernate(erlang, apply, [fun() -> sleeper(Sum + Amount) end, []]);
		{sync, From} -> From ! {sum, Sum}, erlang:hibernate(erlang, apply, [fun() -> sleeper(Sum) end, []])
	end.

mem(Name, Start) ->
	Main = self(),
	erlang:garbage_collect(),
	Before = erlang:memory(processes),
	All = [spawn(Start) || _ <- lists:seq(1, ?IDLE_ACTORS)],
	[Pid ! {msg, 1, 1} || Pid <- All],
	[Pid ! {sync, Main} || Pid <- All],
	check(Name, collect(?IDLE_ACTORS, 0), ?IDLE_ACTORS),
	erlang:garbage_collect(),
	receive after 200 -> ok end,
	Own = element(2, process_info(self(), memory)),
	After = erlang:memory(processes) - Own,
	print(Name, (After - Before) / ?IDLE_ACTORS, "B/actor", ?IDLE_ACTORS, 0.0),
	stop_all(All).
