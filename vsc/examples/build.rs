//! Links each guest as a freestanding image at 2 MiB.

include!("../../hypercall-api/freestanding/link_arguments.rs");

fn main() {
    emit(
        0x20_0000,
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../hypercall-api/freestanding/image.ld"
        ),
    );
}
