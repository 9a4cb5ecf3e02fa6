#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| rerankd_fuzz::manifest::run(input));
