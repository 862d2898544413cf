# BENCHES += bench/bench_x
