//! Generates the protobuf types with protox, so that nobody has to install `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../proto";
    println!("cargo:rerun-if-changed={root}");
    let files = protox::compile(
        [
            "tutti/v1/location.proto",
            "tutti/v1/room.proto",
            "tutti/v1/topic.proto",
            "tutti/v1/notification.proto",
            "tutti/queue/v1/queue.proto",
            "tutti/notify/v1/notify.proto",
        ],
        [root],
    )?;
    prost_build::Config::new().bytes(["."]).compile_fds(files)?;
    Ok(())
}
