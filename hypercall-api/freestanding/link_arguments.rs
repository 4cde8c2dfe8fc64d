// Included by the build script of each image: how the host's linker makes a freestanding image.

fn emit(image_base: u64, script: &str) {
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        &format!("-Wl,-T,{script},--defsym=IMAGE_BASE={image_base:#x}"),
        "-Wl,--build-id=none,-z,max-page-size=0x1000,-z,norelro,--no-dynamic-linker",
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rerun-if-changed={script}");
    println!("cargo:rerun-if-changed=build.rs");
}
