//! Runs a target without libFuzzer: each seed, each input that once broke something, and mutations of
//! them, the same ones each time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// CPU time of one input in `make test`, at most: some ten thousand times what one takes.
const MOST_CPU: Duration = Duration::from_secs(2);

/// No input takes that long on any machine, however busy: it hangs.
const HANGS_AFTER: Duration = Duration::from_secs(120);

/// Replays a target's inputs, and `mutations` of them (50 times as many with `RERANKD_LONG_TESTS=1`),
/// each of at most 64 KiB.
///
/// # Panics
/// Where an input breaks a promise, takes more than [`MOST_CPU`] or does not end. The input is kept in
/// `scratch` and named.
pub fn replay(target: &str, run: fn(&[u8]), mutations: usize, scratch: &Path) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let mut seeds = read(&folder.join("seeds").join(target));
    let first = seeds.len();
    seeds.extend(read(&folder.join("regressions").join(target)));
    assert!(first > 10, "only {first} seeds of `{target}`");
    let words = dictionary(&folder.join(format!("{target}.dict")));
    let long = std::env::var_os("RERANKD_LONG_TESTS").is_some_and(|value| value == "1");
    let mutations = if long { 50 * mutations } else { mutations };

    let current: Arc<Mutex<(Vec<u8>, Instant)>> =
        Arc::new(Mutex::new((Vec::new(), Instant::now())));
    let shown = Arc::clone(&current);
    let worker = std::thread::spawn(move || {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for number in 0..seeds.len() + mutations {
            let input = match seeds.get(number) {
                Some(seed) => seed.clone(),
                None => random.mutated(&seeds, &words),
            };
            *shown.lock().expect("nothing panics while it holds this") =
                (input.clone(), Instant::now());
            let before = thread_cpu();
            run(&input);
            let took = thread_cpu()
                .zip(before)
                .map(|(after, before)| after - before);
            let took = took.unwrap_or_default();
            assert!(took < MOST_CPU, "it took {took:?} of CPU time");
        }
    });
    let keep = || {
        let input = current.lock().expect("nothing panics while it holds this");
        let path = scratch.join(format!("{target}.input"));
        std::fs::write(&path, &input.0).expect("the target folder is writable");
        path.display().to_string()
    };
    while !worker.is_finished() {
        std::thread::park_timeout(Duration::from_millis(5));
        let since = current
            .lock()
            .expect("nothing panics while it holds this")
            .1;
        assert!(
            since.elapsed() < HANGS_AFTER,
            "`{target}` hangs on {}",
            keep()
        );
    }
    if let Err(panic) = worker.join() {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or(panic.downcast_ref::<&str>().copied());
        panic!(
            "`{target}` breaks on {}: {}",
            keep(),
            said.unwrap_or_default()
        );
    }
}

/// CPU time of this thread, where the system says.
pub fn thread_cpu() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = text.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

fn read(folder: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    // The same order on every machine.
    paths.sort();
    paths
        .iter()
        .map(|path| {
            std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        })
        .collect()
}

/// The words of a libFuzzer dictionary: the last quoted text of each line.
fn dictionary(path: &Path) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(path);
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let inner = line.split_once('"')?.1.strip_suffix('"')?;
            Some(
                inner
                    .replace("\\\"", "\"")
                    .replace("\\\\", "\\")
                    .into_bytes(),
            )
        })
        .collect()
}

/// xorshift64: the same numbers for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or(0) % limit.max(1)
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    fn mutated(&mut self, seeds: &[Vec<u8>], words: &[Vec<u8>]) -> Vec<u8> {
        const LONGEST: usize = 64 << 10;
        let mut input = self.of(seeds).clone();
        for _ in 0..=self.below(4) {
            let at = self.below(input.len() + 1);
            let end = at + self.below(input.len() - at + 1);
            match self.below(9) {
                0 if at < input.len() => input[at] ^= 1 << self.below(8),
                1 if at < input.len() => {
                    input[at] = u8::try_from(self.below(256)).unwrap_or(0);
                }
                2 => drop(input.drain(at..end)),
                3 => input.truncate(at),
                // The same again and again, as lists and nesting have it.
                4 => {
                    let part = input[at..end.min(at + 64)].repeat(1 + self.below(200));
                    input.splice(at..at, part);
                }
                5 => {
                    let other = self.of(seeds);
                    let from = self.below(other.len());
                    let part = other[from..from + self.below(other.len() - from)].to_vec();
                    input.splice(at..end, part);
                }
                6 => {
                    let structure = *self.of(b"{}[]\",:\\0-ntu e\xff");
                    input.insert(at, structure);
                }
                _ if !words.is_empty() => {
                    let word = self.of(words).clone();
                    let until = if self.below(2) == 0 {
                        at
                    } else {
                        end.min(at + word.len())
                    };
                    input.splice(at..until, word);
                }
                _ => {}
            }
            input.truncate(LONGEST);
        }
        input
    }
}
