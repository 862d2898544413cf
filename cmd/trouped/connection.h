/*
 * connection.h - the TCP sockets behind nng's connections, for what nng 1.5.2 cannot do itself.
 *
 * nng loses track of a connection that is closed while a message goes through in pieces: the next
 * piece is refused without a word (tcptran_pipe_recv_cb, tcptran_pipe_send_cb), the one thread that
 * frees connections waits for it for ever, and from then on none is freed. So a client is not
 * disconnected by nng_pipe_close but by making the kernel say "end of file", which nng meets in its
 * own order; and connections that are gone although nng never said so are found out.
 *
 * Threads: any. Blocking: a look at every descriptor of the process; for rare cases.
 */
#ifndef CMD_TROUPED_CONNECTION_H
#define CMD_TROUPED_CONNECTION_H

#include <nng/nng.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Names the connection by its two addresses; 0: not TCP. */
uint64_t td_connection_key(nng_pipe pipe);
/* Ends it: what arrived and was not read is thrown away, nothing more arrives, and the close that
 * follows throws away what was not sent. False: there is no such TCP connection. */
bool td_connection_sever(uint64_t key);
/* Keys of all connections of this process that are connected; at most max. */
size_t td_connection_alive(uint64_t *list, size_t max);

#endif
