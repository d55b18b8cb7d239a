//! One ZooKeeper session on one connection, with the operations that km needs. A broken session cannot be resumed: open another.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::Ensemble;
use super::wire::{self, Fields, Op, Packet, XID_AUTH, XID_EVENT, XID_PING};

/// How long the server is asked to keep the session without hearing of us, and how long we wait for it.
const SESSION: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);

/// Why a session or operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Server(#[from] wire::Error),
    #[error("no answer within {0:?}")]
    Silent(Duration),
}

/// A session.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    buffer: BytesMut,
    session: Duration,
    xid: i32,
    /// A watch fired since it was last asked for.
    notified: bool,
}

impl Client {
    /// Opens a session with the first server that answers, tried in order from index `start`.
    ///
    /// # Errors
    /// If none does: the error of the last one.
    pub async fn open(ensemble: &Ensemble, start: usize) -> Result<Self, Error> {
        let mut last = Error::Io(io::ErrorKind::NotFound.into());
        for turn in 0..ensemble.servers.len() {
            let (host, port) = &ensemble.servers[(start + turn) % ensemble.servers.len()];
            match timeout(CONNECT, Self::connect(host, *port, ensemble.credential.as_deref())).await.unwrap_or(Err(Error::Silent(CONNECT)))
            {
                Ok(client) => return Ok(client),
                Err(error) => {
                    tracing::debug!("ZooKeeper {host}:{port}: {error}");
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn connect(host: &str, port: u16, credential: Option<&str>) -> Result<Self, Error> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, buffer: BytesMut::new(), session: SESSION, xid: 0, notified: false };
        client.send(Packet::connect(SESSION.as_millis() as i32)).await?;
        let granted = client.packet().await?.session()?;
        client.session = Duration::from_millis(granted.unsigned_abs().into());
        if let Some(credential) = credential {
            let packet = Packet::request(XID_AUTH, Op::Auth).int(0).text("digest").text(credential);
            client.exchange(XID_AUTH, packet).await?;
        }
        Ok(client)
    }

    /// The names of a node's children; with `watch`, [`Client::notified`] returns once they change or the node is deleted.
    ///
    /// # Errors
    /// As for every operation: connection errors, and errors of the server, such as `NoNode`.
    pub async fn children(&mut self, path: &str, watch: bool) -> Result<Vec<String>, Error> {
        Ok(self.request(Op::GetChildren, |packet| packet.text(path).flag(watch)).await?.texts()?)
    }

    /// Whether there is such a node; with `watch`, [`Client::notified`] returns once that, or its data, changes.
    pub async fn exists(&mut self, path: &str, watch: bool) -> Result<bool, Error> {
        match self.request(Op::Exists, |packet| packet.text(path).flag(watch)).await {
            Ok(_) => Ok(true),
            Err(Error::Server(wire::Error::NoNode)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A node's data.
    pub async fn data(&mut self, path: &str) -> Result<Bytes, Error> {
        Ok(self.request(Op::GetData, |packet| packet.text(path).flag(false)).await?.buffer()?)
    }

    /// Creates a persistent node that all clients may read and write.
    pub async fn create(&mut self, path: &str, data: &[u8]) -> Result<(), Error> {
        // one access rule: all permissions (31) for anyone in the world; flags 0: neither ephemeral nor sequential
        let fields = |packet: Packet| packet.text(path).buffer(data).int(1).int(31).text("world").text("anyone").int(0);
        self.request(Op::Create, fields).await.map(drop)
    }

    /// Replaces a node's data, whatever its version.
    pub async fn set(&mut self, path: &str, data: &[u8]) -> Result<(), Error> {
        self.request(Op::SetData, |packet| packet.text(path).buffer(data).int(-1)).await.map(drop)
    }

    /// Removes a node, whatever its version.
    pub async fn delete(&mut self, path: &str) -> Result<(), Error> {
        self.request(Op::Delete, |packet| packet.text(path).int(-1)).await.map(drop)
    }

    /// Keeps the session alive until a watch fires.
    pub async fn notified(&mut self) -> Result<(), Error> {
        let mut heard = Instant::now();
        while !std::mem::take(&mut self.notified) {
            match timeout(self.session / 3, self.packet()).await {
                Ok(packet) => {
                    self.note(&mut packet?)?;
                    heard = Instant::now();
                }
                Err(_) if heard.elapsed() > self.session => return Err(Error::Silent(self.session)),
                Err(_) => self.send(Packet::request(XID_PING, Op::Ping)).await?,
            }
        }
        Ok(())
    }

    /// Ends the session at once, rather than letting it run out.
    pub async fn close(mut self) {
        let farewell = Packet::request(i32::MAX, Op::Close);
        let _ = timeout(CONNECT, self.exchange(i32::MAX, farewell)).await;
    }

    async fn request(&mut self, op: Op, fields: impl FnOnce(Packet) -> Packet) -> Result<Fields, Error> {
        self.xid = self.xid % (i32::MAX - 1) + 1;
        let session = self.session;
        timeout(session, self.exchange(self.xid, fields(Packet::request(self.xid, op)))).await.unwrap_or(Err(Error::Silent(session)))
    }

    async fn exchange(&mut self, xid: i32, packet: Packet) -> Result<Fields, Error> {
        self.send(packet).await?;
        loop {
            let mut packet = self.packet().await?;
            if let Some((answered, verdict)) = self.note(&mut packet)?.filter(|(answered, _)| *answered == xid) {
                tracing::trace!("ZooKeeper answered {answered}");
                return Ok(verdict.map(|()| packet)?);
            }
        }
    }

    /// Reads a packet's header; `None` for an event, which is remembered.
    fn note(&mut self, packet: &mut Fields) -> Result<Option<(i32, Result<(), wire::Error>)>, Error> {
        let (xid, verdict) = packet.reply()?;
        self.notified |= xid == XID_EVENT;
        Ok((xid != XID_EVENT).then_some((xid, verdict)))
    }

    async fn send(&mut self, packet: Packet) -> Result<(), Error> {
        Ok(self.stream.write_all(&packet.finish()).await?)
    }

    /// The next packet. Nothing is lost if the call is cancelled.
    async fn packet(&mut self) -> Result<Fields, Error> {
        loop {
            if let Some(packet) = wire::take_packet(&mut self.buffer)? {
                return Ok(packet);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}
