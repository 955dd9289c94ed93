//! Generates the gRPC server with protox, so that nobody has to install `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    println!("cargo:rerun-if-changed={root}");
    let files = protox::compile(["tutti/notify/v1/notify.proto"], [root])?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".tutti.v1", "::tutti_model")
        .extern_path(".tutti.notify.v1", "::tutti_model::notify")
        .compile_fds(files)?;
    Ok(())
}
