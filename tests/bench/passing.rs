//! How many requests a second go through a proxy, against the engine itself: with all processes on all
//! cores, and with the engine on a core of its own. nginx, where it is installed, shows what a proxy can
//! do here that does nothing else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Result;
use crate::client::Call;
use crate::measure::Samples;

/// Connections that send one request after the other: a few, and so many that nobody waits for one
/// that sleeps.
const CONNECTIONS: [usize; 2] = [FEW, 32];
pub(crate) const FEW: usize = 4;

/// Where the engine and the others run when they are apart: a core each.
const ENGINE: &str = "0";
const OTHERS: &str = "1";

/// Who is asked.
const WAYS: [&str; 3] = ["engine", "proxy", "nginx"];

/// Where things are and who may run where.
pub(crate) struct Places<'a> {
    /// `host:port` of the engine.
    pub(crate) engine: String,
    /// The process that started it.
    pub(crate) engine_process: u32,
    /// `host:port` of the search proxy.
    pub(crate) proxy: &'a str,
    pub(crate) proxy_process: u32,
}

/// One line of the table, requests a second by [`WAYS`].
pub(crate) struct Line {
    pub(crate) what: &'static str,
    pub(crate) connections: usize,
    pub(crate) apart: bool,
    rates: [Samples; 3],
}

impl Line {
    /// What the proxy lets through, as a part of what the engine answers by itself.
    pub(crate) fn ratio(&self) -> f64 {
        self.rates[1].median() / self.rates[0].median()
    }

    /// One row of Markdown.
    pub(crate) fn row(&self) -> String {
        let [engine, proxy, nginx] = &self.rates;
        let other = match nginx.len() {
            0 => "| |".to_owned(),
            _ => format!(
                "{:.0} | {:.2} |",
                nginx.median(),
                nginx.median() / engine.median()
            ),
        };
        format!(
            "| {} | {} | {} | {:.0} | {:.0} | {:.2} | {other}",
            self.what,
            if self.apart { "apart" } else { "shared" },
            self.connections,
            engine.median(),
            proxy.median(),
            self.ratio(),
        )
    }
}

/// The head of that table.
pub(crate) const HEAD: &str = "| passed on | cores | connections | engine, a second | proxy, a second | ratio | nginx, a second | ratio |\n\
     |---|---|---|---|---|---|---|---|\n";

/// Measures all lines, every way in turns.
pub(crate) fn measure(places: &Places<'_>, calls: &[Call], quick: bool) -> Result<Vec<Line>> {
    let nginx = Nginx::start(&places.engine)?;
    let mut lines = Vec::new();
    for apart in [false, true] {
        let cores = Cores::new(places, nginx.as_ref(), apart)?;
        for connections in CONNECTIONS {
            for call in calls {
                let request = over_the_wire(call);
                let mut rates = WAYS.map(|_| Samples::default());
                // Once unseen: connections are made, and the engine compiles code.
                for round in 0..if quick { 2 } else { 5 } {
                    let slice = Duration::from_millis(if quick { 500 } else { 1500 });
                    for (way, rate) in WAYS.iter().zip(&mut rates) {
                        let address = match (*way, &nginx) {
                            ("engine", _) => places.engine.as_str(),
                            ("proxy", _) => places.proxy,
                            (_, Some(nginx)) => nginx.address.as_str(),
                            (_, None) => continue,
                        };
                        let answers = per_second(address, &request, connections, slice)?;
                        if round > 0 {
                            rate.push(answers);
                        }
                    }
                }
                lines.push(Line {
                    what: call.name,
                    connections,
                    apart,
                    rates,
                });
            }
        }
        drop(cores);
    }
    Ok(lines)
}

/// A request as it is sent.
fn over_the_wire(call: &Call) -> Vec<u8> {
    let body = call.body.as_ref().map(Value::to_string);
    let method = if body.is_some() { "POST" } else { "GET" };
    let body = body.unwrap_or_default();
    let request = format!(
        "{method} {} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        call.path,
        body.len()
    );
    request.into_bytes()
}

/// Answers a second to so many connections that each send one request after the other.
fn per_second(address: &str, request: &[u8], connections: usize, time: Duration) -> Result<f64> {
    let done = AtomicU64::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        let clients = (0..connections).map(|_| {
            scope.spawn(|| {
                let mut connection = Kept::open(address)?;
                while started.elapsed() < time {
                    connection.call(request)?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<(), std::io::Error>(())
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.join().map_err(|_| "a client panicked")??;
        }
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    Ok(done.into_inner() as f64 / started.elapsed().as_secs_f64())
}

/// A connection that costs a client next to nothing: what is measured stands behind it.
struct Kept {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Kept {
    fn open(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self {
            stream,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Sends a request and reads its answer, which must be a 200 with a `Content-Length`.
    fn call(&mut self, request: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(request)?;
        let (mut filled, mut whole) = (0, None);
        while whole.is_none_or(|whole| filled < whole) {
            match self.stream.read(&mut self.buffer[filled..])? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
            if whole.is_none() {
                whole = size(&self.buffer[..filled])?;
            }
        }
        Ok(())
    }
}

/// How long an answer is, as soon as its head is there.
fn size(answer: &[u8]) -> std::io::Result<Option<usize>> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&answer[..end]);
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    match length {
        Some(length) if head.starts_with("HTTP/1.1 200") => Ok(Some(end + 4 + length)),
        _ => Err(std::io::Error::other(format!(
            "not the answer it should be: {head}"
        ))),
    }
}

/// Who runs where, until this is dropped.
struct Cores(Vec<u32>);

impl Cores {
    /// If they are to be apart, the engine has one core, and client and proxies another.
    fn new(places: &Places<'_>, nginx: Option<&Nginx>, apart: bool) -> Result<Self> {
        let mut engine = descendants(places.engine_process)?;
        let mut others = vec![places.proxy_process];
        if let Some(nginx) = nginx {
            others.extend(descendants(nginx.child.id())?);
        }
        if apart {
            for process in &engine {
                pin(*process, ENGINE, true)?;
            }
            for process in &others {
                pin(*process, OTHERS, true)?;
            }
            // Threads that are started now go where this one is.
            pin(std::process::id(), OTHERS, false)?;
        }
        engine.extend(others);
        Ok(Self(engine))
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        for process in &self.0 {
            // A thread that has ended meanwhile is no trouble.
            let _ = pin(*process, &all(), true);
        }
        let _ = pin(std::process::id(), &all(), false);
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn all() -> String {
    format!("0-{}", cores() - 1)
}

fn pin(process: u32, cores: &str, threads: bool) -> Result<()> {
    let output = Command::new("taskset")
        .args([if threads { "-acp" } else { "-cp" }, cores])
        .arg(process.to_string())
        .output()
        .map_err(|error| format!("taskset (util-linux): {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
    }
}

/// A process and all that it has started.
fn descendants(process: u32) -> Result<Vec<u32>> {
    let mut family = vec![process];
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // One that has ended since is nobody's child.
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_whitespace().nth(1));
        if let Some(parent) = parent
            .flatten()
            .and_then(|parent| parent.parse::<u32>().ok())
        {
            parents.push((child, parent));
        }
    }
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(child, _)| child),
        );
        next += 1;
    }
    Ok(family)
}

/// A plain reverse proxy before the same engine.
struct Nginx {
    child: Child,
    address: String,
    folder: PathBuf,
}

impl Nginx {
    /// `None` where it is not installed.
    fn start(engine: &str) -> Result<Option<Self>> {
        let folder =
            std::env::temp_dir().join(format!("rerankd-bench-nginx-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        // Free a moment ago: nginx does not say which port it was given.
        let address = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .to_string();
        std::fs::write(
            folder.join("nginx.conf"),
            configuration(&folder, engine, &address),
        )?;
        let started = Command::new("nginx")
            .arg("-p")
            .arg(&folder)
            .args(["-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match started {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("    nginx is not installed: its columns stay empty");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let nginx = Self {
            child,
            address,
            folder,
        };
        for _ in 0..100 {
            if TcpStream::connect(&nginx.address).is_ok() {
                return Ok(Some(nginx));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("nginx does not listen".into())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let quit = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        if quit.is_ok_and(|status| status.success()) {
            let _ = self.child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// No log, connections kept on both sides, as many processes as cores.
fn configuration(folder: &Path, engine: &str, address: &str) -> String {
    let folder = folder.display();
    format!(
        "worker_processes auto;\npid {folder}/pid;\nerror_log /dev/null;\nevents {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path {folder}/body;\n  proxy_temp_path {folder}/proxy;\n\
         \x20 fastcgi_temp_path {folder}/fastcgi;\n  uwsgi_temp_path {folder}/uwsgi;\n  scgi_temp_path {folder}/scgi;\n\
         \x20 upstream engine {{ server {engine}; keepalive 64; }}\n\
         \x20 server {{\n    listen {address};\n    keepalive_requests 1000000000;\n    location / {{\n\
         \x20     proxy_pass http://engine;\n      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n    }}\n  }}\n}}\n"
    )
}
