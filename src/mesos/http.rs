//! HTTP/1.1 as Mesos speaks it: requests that may be pipelined on one connection, and responses that may never end.
//!
//! [`Parser`] reads responses without any I/O; [`Connection`] is a socket with one.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::v1::Credential;

/// How long a connection may take to come up. A master or agent that is alive answers in far less.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest status line and headers accepted.
const MAX_HEAD: usize = 64 << 10;

/// Media type of every call and event.
pub const PROTOBUF: &str = "application/x-protobuf";

/// Why an exchange failed, short of an answer with an unwelcome status.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot connect to {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the answer is not HTTP: {0}")]
    Malformed(&'static str),
    #[error("the connection was closed")]
    Closed,
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// Status and headers of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    /// The first header of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// A part of a response, in the order Head, any number of Body, End.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    Head(Head),
    Body(Bytes),
    End,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Head,
    /// This many bytes of the body are outstanding.
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailer,
    UntilClose,
}

/// Parses the responses on a connection, one after another.
#[derive(Debug, Default)]
pub struct Parser {
    buffer: BytesMut,
    state: State,
}

impl Parser {
    /// Where the bytes that arrive are to be appended.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next piece, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// If the bytes are not HTTP; the connection is then unusable.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, Error> {
        loop {
            match self.state {
                State::Head => return self.read_head(),
                State::Body(0) => {
                    self.state = State::Head;
                    return Ok(Some(Piece::End));
                }
                State::Body(left) => {
                    return Ok(self.take_body(left).map(|(body, left)| (self.state = State::Body(left), Piece::Body(body)).1));
                }
                State::Chunk(0) => self.state = State::ChunkEnd,
                State::Chunk(left) => {
                    return Ok(self.take_body(left).map(|(body, left)| (self.state = State::Chunk(left), Piece::Body(body)).1));
                }
                State::ChunkSize => match httparse::parse_chunk_size(&self.buffer).map_err(|_| Error::Malformed("chunk size"))? {
                    httparse::Status::Partial => return Ok(None),
                    httparse::Status::Complete((used, size)) => {
                        self.buffer.advance(used);
                        self.state = if size == 0 { State::Trailer } else { State::Chunk(size) };
                    }
                },
                State::ChunkEnd => match self.take_line() {
                    None => return Ok(None),
                    Some(line) if line.is_empty() => self.state = State::ChunkSize,
                    Some(_) => return Err(Error::Malformed("chunk without an end")),
                },
                State::Trailer => match self.take_line() {
                    None => return Ok(None),
                    Some(line) if line.is_empty() => self.state = State::Body(0),
                    Some(_) => {}
                },
                State::UntilClose => return Ok(self.take_body(u64::MAX).map(|(body, _)| Piece::Body(body))),
            }
        }
    }

    /// Whether the response in progress may end by the connection's end.
    fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }

    fn read_head(&mut self) -> Result<Option<Piece>, Error> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let used = match response.parse(&self.buffer).map_err(|_| Error::Malformed("status line or headers"))? {
            httparse::Status::Complete(used) => used,
            httparse::Status::Partial if self.buffer.len() > MAX_HEAD => return Err(Error::Malformed("endless headers")),
            httparse::Status::Partial => return Ok(None),
        };
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let head = Head {
            status: response.code.unwrap_or_default(),
            headers: response.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect(),
        };
        self.buffer.advance(used);
        self.state = if matches!(head.status, 100..=199 | 204 | 304) {
            State::Body(0)
        } else if head.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            State::ChunkSize
        } else if let Some(length) = head.header("content-length") {
            State::Body(length.trim().parse().map_err(|_| Error::Malformed("Content-Length"))?)
        } else {
            State::UntilClose
        };
        Ok(Some(Piece::Head(head)))
    }

    /// The available part of the body, at most `left` bytes, and the rest of `left`.
    fn take_body(&mut self, left: u64) -> Option<(Bytes, u64)> {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
        (here > 0).then(|| (self.buffer.split_to(here).freeze(), left - here as u64))
    }

    fn take_line(&mut self) -> Option<BytesMut> {
        let end = self.buffer.iter().position(|&byte| byte == b'\n')?;
        let mut line = self.buffer.split_to(end + 1);
        line.truncate(end - usize::from(line[..end].ends_with(b"\r")));
        Some(line)
    }
}

/// The part of a request that does not change between the calls on a connection.
#[derive(Clone)]
pub struct RequestHead(String);

/// Without the headers: they hold the credential.
impl std::fmt::Debug for RequestHead {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.debug_tuple("RequestHead").field(&self.0.lines().next().unwrap_or_default()).finish()
    }
}

impl RequestHead {
    /// `method` is GET or POST, `host` the value of the Host header.
    pub fn new(method: &str, host: &str, path: &str) -> Self {
        Self(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: km\r\n"))
    }

    /// A call to a v1 API: a protobuf in, and protobufs (or a text about an error) out.
    pub fn call(host: &str, path: &str) -> Self {
        Self::new("POST", host, path).with("Content-Type", PROTOBUF).with("Accept", PROTOBUF)
    }

    /// Adds a header.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.extend([name, ": ", value, "\r\n"]);
        self
    }

    /// Adds basic authentication, if there is a credential.
    pub fn with_credential(self, credential: Option<&Credential>) -> Self {
        let Some(Credential { principal, secret }) = credential else { return self };
        let pair = format!("{principal}:{}", secret.as_deref().unwrap_or_default());
        self.with("Authorization", &format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
    }

    /// Appends the whole request with `body` to a buffer.
    pub fn write(&self, body: &impl prost::Message, to: &mut BytesMut) {
        to.put_slice(self.0.as_bytes());
        to.put_slice(format!("Content-Length: {}\r\n\r\n", body.encoded_len()).as_bytes());
        // BytesMut grows, so encoding cannot run out of room
        let _ = body.encode(to);
    }
}

/// A connection to a master or an agent.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    parser: Parser,
}

impl Connection {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// If the server does not answer.
    pub async fn open(address: &str) -> Result<Self, Error> {
        let failed = |source| Error::Connect { address: address.to_owned(), source };
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
        let stream = connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, parser: Parser::default() })
    }

    /// Sends one request.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn send(&mut self, head: &RequestHead, body: &impl prost::Message) -> Result<(), Error> {
        let mut request = BytesMut::new();
        head.write(body, &mut request);
        Ok(self.stream.write_all(&request).await?)
    }

    /// Status and headers of the next response.
    ///
    /// # Errors
    /// If the connection ends, or the data is not HTTP.
    pub async fn head(&mut self) -> Result<Head, Error> {
        loop {
            match self.piece().await? {
                Piece::Head(head) if head.status >= 200 => return Ok(head),
                _ => {}
            }
        }
    }

    /// The next bytes of the response's body, `None` at its end. Cancel-safe.
    ///
    /// # Errors
    /// If the connection ends, or the data is not HTTP.
    pub async fn body(&mut self) -> Result<Option<Bytes>, Error> {
        match self.piece().await? {
            Piece::Body(bytes) => Ok(Some(bytes)),
            Piece::End => Ok(None),
            Piece::Head(_) => Err(Error::Malformed("a response where a body was expected")),
        }
    }

    /// The whole body of the response.
    ///
    /// # Errors
    /// If the connection ends before the body does, or the data is not HTTP.
    pub async fn whole_body(&mut self) -> Result<Bytes, Error> {
        let mut whole = BytesMut::new();
        while let Some(bytes) = self.body().await? {
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.freeze())
    }

    /// The text of an error response, truncated for a log line.
    pub async fn error_text(&mut self) -> String {
        let body = tokio::time::timeout(CONNECT_TIMEOUT, self.whole_body()).await.ok().and_then(Result::ok).unwrap_or_default();
        String::from_utf8_lossy(&body[..body.len().min(4096)]).trim().to_owned()
    }

    /// The socket, and the parser with its buffered bytes.
    pub(super) fn into_parts(self) -> (TcpStream, Parser) {
        (self.stream, self.parser)
    }

    async fn piece(&mut self) -> Result<Piece, Error> {
        loop {
            if let Some(piece) = self.parser.next_piece()? {
                return Ok(piece);
            }
            if self.stream.read_buf(&mut self.parser.buffer).await? == 0 {
                return if self.parser.ends_with_connection() { Ok(Piece::End) } else { Err(Error::Closed) };
            }
        }
    }
}

/// `host:port` of an absolute or scheme-relative URL.
pub fn authority(url: &str) -> Option<&str> {
    let rest = &url[url.find("//")? + 2..];
    Some(rest.split('/').next().unwrap_or(rest)).filter(|authority| authority.contains(':'))
}

/// GETs a page in one go.
///
/// # Errors
/// If there is no whole answer within `timeout`. An answer with an unwelcome status is not an error.
pub async fn get(address: &str, path: &str, credential: Option<&Credential>, timeout: Duration) -> Result<(Head, Bytes), Error> {
    let exchange = async {
        let mut connection = Connection::open(address).await?;
        let request = RequestHead::new("GET", address, path).with("Connection", "close").with_credential(credential);
        connection.send(&request, &()).await?;
        let head = connection.head().await?;
        let body = connection.whole_body().await?;
        Ok((head, body))
    };
    tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(Error::Timeout(timeout)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANSWERS: &str = "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n\
        HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\nMesos-Stream-Id: 7\r\n\r\n5\r\nhello\r\nA;x=y\r\n, 89012345\r\n0\r\nTrailer: 1\r\n\r\n\
        HTTP/1.1 204 No Content\r\n\r\n\
        HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\noops\
        HTTP/1.0 200 OK\r\n\r\nthe rest";

    /// Status and body of each response, however the bytes are split.
    fn read(pieces: impl Iterator<Item = Vec<u8>>) -> Vec<(u16, String)> {
        let (mut parser, mut seen) = (Parser::default(), Vec::new());
        for bytes in pieces {
            parser.buffer().extend_from_slice(&bytes);
            while let Some(piece) = parser.next_piece().unwrap() {
                match piece {
                    Piece::Head(head) => seen.push((head.status, String::new())),
                    Piece::Body(bytes) => seen.last_mut().unwrap().1.push_str(std::str::from_utf8(&bytes).unwrap()),
                    Piece::End => {}
                }
            }
        }
        assert!(parser.ends_with_connection());
        seen
    }

    proptest! {
        #[test]
        fn responses_survive_any_split(size in 1usize..200) {
            let expected = [(202, ""), (200, "hello, 89012345"), (204, ""), (400, "oops"), (200, "the rest")];
            let seen = read(ANSWERS.as_bytes().chunks(size).map(<[u8]>::to_vec));
            prop_assert_eq!(seen, expected.map(|(status, body)| (status, body.to_owned())));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut parser = Parser::default();
            parser.buffer().extend_from_slice(&bytes);
            while let Ok(Some(_)) = parser.next_piece() {}
        }
    }

    #[test]
    fn the_leader_is_read_out_of_a_location() {
        for (url, leader) in [
            ("//10.0.0.1:5050/api/v1/scheduler", Some("10.0.0.1:5050")),
            ("http://m1.example:5050", Some("m1.example:5050")),
            ("//[::1]:5050/x", Some("[::1]:5050")),
            ("/api/v1/scheduler", None),
            ("//host/api", None),
        ] {
            assert_eq!(authority(url), leader, "{url}");
        }
    }

    #[test]
    fn headers_are_found_in_any_case() {
        let mut parser = Parser::default();
        parser.buffer().extend_from_slice(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: //h:5050/x\r\nContent-Length: 0\r\n\r\n");
        let Some(Piece::Head(head)) = parser.next_piece().unwrap() else { panic!("no head") };
        assert_eq!((head.header("location"), head.header("none")), (Some("//h:5050/x"), None));
    }

    #[test]
    fn a_request_carries_its_credential_but_does_not_show_it() {
        let credential = Credential { principal: "me".into(), secret: Some("pass".into()) };
        let head = RequestHead::call("h:1", "/api").with_credential(Some(&credential));
        let mut bytes = BytesMut::new();
        head.write(&(), &mut bytes);
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            "POST /api HTTP/1.1\r\nHost: h:1\r\nUser-Agent: km\r\nContent-Type: application/x-protobuf\r\nAccept: application/x-protobuf\r\n\
             Authorization: Basic bWU6cGFzcw==\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(format!("{head:?}"), "RequestHead(\"POST /api HTTP/1.1\")");
    }
}
