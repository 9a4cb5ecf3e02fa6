//! What the fuzz targets do with an input, each in one function that panics where a promise is
//! broken. `make test` compiles the same files into tests of the host, which replay the seeds and some
//! mutations of them (`replay.rs`) without libFuzzer.

#[cfg(feature = "host")]
pub mod artifact;
#[cfg(feature = "host")]
pub mod manifest;
pub mod wire;
