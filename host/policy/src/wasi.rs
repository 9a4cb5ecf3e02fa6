//! WASI 0.2 for policies whose operator allowed it: enough for language runtimes that will not start
//! without it, and nothing to learn from. Fixed clocks (a real one is a timing oracle), seeded
//! randomness, output to the guest's log, no files, no sockets, no names.

use std::time::Duration;

use rand::SeedableRng;
use wasmtime::component::Linker;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder};

use crate::imports::GuestState;

/// 2024-01-01T00:00:00Z.
const FIXED_TIME: Duration = Duration::from_secs(1_704_067_200);

/// Links all of WASI 0.2's command world.
pub(crate) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)
}

/// What WASI shows to one call.
pub(crate) struct GuestWasi {
    pub(crate) context: WasiCtx,
    pub(crate) output: MemoryOutputPipe,
}

impl GuestWasi {
    /// `output_bytes`: how much of standard output and error is kept.
    pub(crate) fn new(output_bytes: usize) -> Self {
        let output = MemoryOutputPipe::new(output_bytes);
        let mut builder = WasiCtxBuilder::new();
        builder
            .stdout(output.clone())
            .stderr(output.clone())
            .wall_clock(FixedClock)
            .monotonic_clock(FixedClock)
            .secure_random(rand::rngs::StdRng::seed_from_u64(0))
            .insecure_random(rand::rngs::StdRng::seed_from_u64(0))
            .insecure_random_seed(0)
            .max_random_size(1 << 20)
            .socket_addr_check(|_, _| Box::pin(async { false }))
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        Self {
            context: builder.build(),
            output,
        }
    }
}

struct FixedClock;

impl HostWallClock for FixedClock {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        FIXED_TIME
    }
}

impl HostMonotonicClock for FixedClock {
    fn resolution(&self) -> u64 {
        1_000_000_000
    }

    fn now(&self) -> u64 {
        0
    }
}
