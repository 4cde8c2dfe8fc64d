//! Links the root partition as a freestanding image at 16 MiB.

include!("../hypercall-api/freestanding/link_arguments.rs");

fn main() {
    emit(
        0x100_0000,
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../hypercall-api/freestanding/image.ld"
        ),
    );
}
