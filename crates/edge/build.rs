//! Generates the gRPC clients with protox, so that nobody has to install `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    println!("cargo:rerun-if-changed={root}");
    let files = protox::compile(["tutti/queue/v1/queue.proto", "tutti/notify/v1/notify.proto"], [root])?;
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".tutti.v1", "::tutti_model")
        .extern_path(".tutti.queue.v1", "::tutti_model::queue")
        .extern_path(".tutti.notify.v1", "::tutti_model::notify")
        .compile_fds(files)?;
    Ok(())
}
