//! A search engine, or a sidecar, that misbehaves on demand: no real one can be made to break off in the middle of a
//! byte. What a healthy one does is the business of the tests on real engines.

use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::eventually;

/// One request as the engine got it.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Method, target and version.
    pub line: String,
    /// Names in lower case, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
}

impl Asked {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(header, _)| header == name)?;
        Some(&header.1)
    }

    /// How often a header is there.
    pub fn count(&self, name: &str) -> usize {
        let of_name = self.headers.iter().filter(|(header, _)| header == name);
        of_name.count()
    }

    /// The target of the request line.
    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    /// Whether the proxy asks of itself what a search is asked of.
    pub fn is_look_up(&self) -> bool {
        self.header("x-opaque-id") == Some("rerankd-lookup")
    }
}

/// What it saw so far.
#[derive(Default)]
struct Seen {
    asked: Mutex<Vec<Asked>>,
    looked_up: Mutex<Vec<Asked>>,
    body_bytes: AtomicUsize,
    hung_up: AtomicUsize,
}

/// A listening socket whose answers a test writes, byte by byte.
pub struct Upstream {
    address: SocketAddr,
    seen: Arc<Seen>,
}

impl Upstream {
    /// Listens on a free port. `answer` writes what it likes; with `Ok(true)` the connection goes on,
    /// else it ends. Look-ups are refused, and it is not asked about them.
    ///
    /// # Panics
    /// If there is no port.
    pub fn start(
        answer: impl Fn(&Asked, &mut TcpStream) -> Result<bool> + Send + Sync + 'static,
    ) -> Self {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)), answer)
    }

    /// The same with an answer to look-ups, too.
    ///
    /// # Panics
    /// If there is no port.
    pub fn with_look_ups(
        answer: impl Fn(&Asked, &mut TcpStream) -> Result<bool> + Send + Sync + 'static,
    ) -> Self {
        Self::listen(SocketAddr::from(([127, 0, 0, 1], 0)), answer)
    }

    /// The same at an address, such as one where [`nobody`] was before.
    ///
    /// # Panics
    /// If it is taken.
    pub fn start_on(
        address: SocketAddr,
        answer: impl Fn(&Asked, &mut TcpStream) -> Result<bool> + Send + Sync + 'static,
    ) -> Self {
        Self::listen(address, move |asked, stream| match asked.is_look_up() {
            true => write_json(stream, "404 Not Found", r#"{"status":404}"#),
            false => answer(asked, stream),
        })
    }

    fn listen(
        address: SocketAddr,
        answer: impl Fn(&Asked, &mut TcpStream) -> Result<bool> + Send + Sync + 'static,
    ) -> Self {
        let socket = TcpListener::bind(address).expect("the port is free");
        let address = socket.local_addr().expect("it is bound");
        let seen = Arc::new(Seen::default());
        let (answer, noted) = (Arc::new(answer), Arc::clone(&seen));
        // Both kinds of threads end with the test's process.
        std::thread::spawn(move || {
            for stream in socket.incoming().map_while(Result::ok) {
                let (answer, noted) = (Arc::clone(&answer), Arc::clone(&noted));
                std::thread::spawn(move || {
                    let _ = serve(stream, &*answer, &noted);
                    noted.hung_up.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, seen }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests that came whole, in their order, without look-ups.
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.seen.asked.lock();
        asked.expect("no connection panicked").clone()
    }

    /// The look-ups that came.
    pub fn looked_up(&self) -> Vec<Asked> {
        let asked = self.seen.looked_up.lock();
        asked.expect("no connection panicked").clone()
    }

    /// Bytes of bodies that came so far, those of unfinished requests too.
    pub fn body_bytes(&self) -> usize {
        self.seen.body_bytes.load(Ordering::SeqCst)
    }

    /// How many connections have ended.
    pub fn ended(&self) -> usize {
        self.seen.hung_up.load(Ordering::SeqCst)
    }

    /// Waits until `connections` connections have ended.
    ///
    /// # Panics
    /// If they do not.
    pub fn wait_for_ended(&self, connections: usize) {
        eventually("the connections to the engine end", || {
            (self.seen.hung_up.load(Ordering::SeqCst) >= connections).then_some(())
        });
    }
}

/// An address where nobody listens.
///
/// # Panics
/// If there is no port.
pub fn nobody() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    socket.local_addr().expect("it is bound")
}

/// Writes a whole answer.
///
/// # Errors
/// If the other side is gone.
pub fn write_answer(
    stream: &mut TcpStream,
    status: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<bool> {
    let mut text = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[text.as_bytes(), body].concat())?;
    Ok(true)
}

/// Writes an answer of JSON, as engines do.
///
/// # Errors
/// If the other side is gone.
pub fn write_json(stream: &mut TcpStream, status: &str, body: &str) -> Result<bool> {
    let headers = [("content-type", "application/json")];
    write_answer(stream, status, &headers, body.as_bytes())
}

/// Waits until the other side hangs up.
///
/// # Errors
/// If it resets the connection.
pub fn wait_for_end(stream: &mut TcpStream) -> Result<bool> {
    let mut rest = [0; 1024];
    while stream.read(&mut rest)? > 0 {}
    Ok(false)
}

fn serve(
    stream: TcpStream,
    answer: &(dyn Fn(&Asked, &mut TcpStream) -> Result<bool> + Send + Sync),
    seen: &Seen,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read(&mut reader, seen)? {
        let noted = match asked.is_look_up() {
            true => &seen.looked_up,
            false => &seen.asked,
        };
        noted
            .lock()
            .expect("no connection panicked")
            .push(asked.clone());
        if !answer(&asked, &mut writer)? {
            break;
        }
    }
    Ok(())
}

fn line(reader: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn read(reader: &mut BufReader<TcpStream>, seen: &Seen) -> Result<Option<Asked>> {
    let mut asked = Asked {
        line: line(reader)?,
        ..Asked::default()
    };
    if asked.line.is_empty() {
        return Ok(None);
    }
    loop {
        let header = line(reader)?;
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        let name = name.to_ascii_lowercase();
        asked.headers.push((name, value.trim().to_owned()));
    }
    if asked.header("transfer-encoding").is_some() {
        loop {
            let size = usize::from_str_radix(&line(reader)?, 16)
                .map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
            take(reader, size, &mut asked.body, seen)?;
            line(reader)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = asked.header("content-length") {
        let length = length
            .parse()
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
        take(reader, length, &mut asked.body, seen)?;
    }
    Ok(Some(asked))
}

fn take(
    reader: &mut BufReader<TcpStream>,
    mut size: usize,
    body: &mut Vec<u8>,
    seen: &Seen,
) -> Result<()> {
    while size > 0 {
        let there = reader.fill_buf()?;
        if there.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let taken = there.len().min(size);
        body.extend_from_slice(&there[..taken]);
        reader.consume(taken);
        size -= taken;
        seen.body_bytes.fetch_add(taken, Ordering::SeqCst);
    }
    Ok(())
}
