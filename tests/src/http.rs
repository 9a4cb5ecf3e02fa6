//! HTTP/1.1 over a plain socket, so that a test decides about every byte and when it is sent.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use crate::{Answer, PATIENCE};

/// One connection to a server.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(2 * PATIENCE))?;
        stream.set_write_timeout(Some(2 * PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// If the server has closed the connection.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.0.get_mut().write_all(bytes.as_ref())
    }

    /// Sends a whole request with `Content-Length`.
    ///
    /// # Errors
    /// If the server has closed the connection.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<()> {
        let length = body.len().to_string();
        let headers = [headers, &[("Content-Length", &length)]].concat();
        self.send(head(method, path, &headers))?;
        self.send(body)
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub fn finish_sending(&self) {
        // Fails only where the other side is gone already, which the reader will see.
        let _ = self.0.get_ref().shutdown(Shutdown::Write);
    }

    /// Waits for an answer and reads it whole.
    ///
    /// # Errors
    /// If the connection ends before, or what comes is no HTTP.
    pub fn answer(&mut self) -> Result<Answer> {
        let mut answer = self.answer_head()?;
        let length = answer.header("content-length").map(str::to_owned);
        if answer.status == 204 {
            // It has no body, and says nothing of its length.
        } else if let Some(length) = length.and_then(|length| length.parse().ok()) {
            answer.body = vec![0; length];
            self.0.read_exact(&mut answer.body)?;
        } else if answer.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk()? {
                answer.body.extend(chunk);
            }
        } else {
            self.0.read_to_end(&mut answer.body)?;
        }
        Ok(answer)
    }

    /// Waits for the head of an answer whose body comes bit by bit; then [`chunk`](Self::chunk).
    ///
    /// # Errors
    /// As [`answer`](Self::answer).
    pub fn answer_head(&mut self) -> Result<Answer> {
        let status_line = self.line()?;
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| Error::new(ErrorKind::InvalidData, status_line.clone()))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            match line.split_once(':') {
                Some((name, value)) => {
                    headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
                None => break,
            }
        }
        Ok(Answer {
            status,
            headers,
            body: Vec::new(),
        })
    }

    /// Waits for the next chunk of a chunked body; `None` is its end.
    ///
    /// # Errors
    /// If the connection ends before, or what comes is no chunk.
    pub fn chunk(&mut self) -> Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let length = usize::from_str_radix(&line, 16)
            .map_err(|_| Error::new(ErrorKind::InvalidData, line.clone()))?;
        let mut chunk = vec![0; length];
        self.0.read_exact(&mut chunk)?;
        self.line()?;
        Ok((length > 0).then_some(chunk))
    }

    /// Whether the server ends the connection, without another byte.
    pub fn is_closed_by_server(&mut self) -> bool {
        match self.0.fill_buf() {
            Ok(bytes) => bytes.is_empty(),
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

/// Whether there is a header of this name.
pub(crate) fn has_header(headers: &[(&str, &str)], name: &str) -> bool {
    headers
        .iter()
        .any(|(header, _)| header.eq_ignore_ascii_case(name))
}

/// The head of a request, to be sent with [`Connection::send`]. `Host` is `localhost` if `headers` have
/// none.
pub fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !has_header(headers, "host") {
        head.push_str("Host: localhost\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}
