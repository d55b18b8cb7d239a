//! Compiles the Mesos v1 messages below `proto/` to Rust, without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const PROTOS: [&str; 3] = ["mesos/v1/mesos.proto", "mesos/v1/scheduler.proto", "mesos/v1/executor.proto"];
    for proto in PROTOS {
        println!("cargo::rerun-if-changed=proto/{proto}");
    }
    prost_build::Config::new().bytes(["."]).include_file("messages.rs").compile_fds(protox::compile(PROTOS, ["proto"])?)?;
    Ok(())
}
