module troupe/interop/mangos

go 1.20

require go.nanomsg.org/mangos/v3 v3.4.2
