//! Streams out of containers: logs, and commands run inside.

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters::LogsOptions;
use futures_util::{Stream, StreamExt};

use super::{ExecSession, ExecSpec, LogChunk, LogOptions, Result, translate};
use crate::runtime::LogStream;

pub(super) fn logs(api: &bollard::Docker, id: &str, options: &LogOptions) -> impl Stream<Item = Result<LogChunk>> + Send + use<> {
    let options = LogsOptions {
        follow: options.follow,
        stdout: true,
        stderr: true,
        since: options.since.map_or(0, |at| i32::try_from(at.as_second()).unwrap_or(i32::MAX)),
        timestamps: options.timestamps,
        tail: options.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string()),
        ..Default::default()
    };
    api.logs(id, Some(options)).map(|chunk| chunk.map(chunk_of).map_err(translate))
}

pub(super) async fn exec(api: &bollard::Docker, id: &str, spec: &ExecSpec) -> std::result::Result<ExecSession, Error> {
    let options = CreateExecOptions {
        attach_stdin: Some(spec.stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(!spec.tty),
        tty: Some(spec.tty),
        cmd: Some(spec.command.clone()),
        ..Default::default()
    };
    let exec = api.create_exec(id, options).await?.id;
    let started = api.start_exec(&exec, Some(StartExecOptions { detach: false, tty: spec.tty, output_capacity: None })).await?;
    match started {
        StartExecResults::Attached { output, input } => {
            let output = output.map(|chunk| chunk.map(chunk_of).map_err(translate)).boxed();
            Ok(ExecSession { id: exec, output, input })
        }
        StartExecResults::Detached => Err(Error::DockerStreamError { error: "the engine did not attach to the command".to_owned() }),
    }
}

fn chunk_of(output: LogOutput) -> LogChunk {
    let stream = if matches!(output, LogOutput::StdErr { .. }) { LogStream::Stderr } else { LogStream::Stdout };
    LogChunk { stream, data: output.into_bytes() }
}
