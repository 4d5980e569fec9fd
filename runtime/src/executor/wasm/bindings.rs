//! Types generated from `wit/`. The only module that sees them is `wasm`.
#![allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "generated from WIT")]

/// Our own world, with `detect` and `build` to be called from a fiber.
pub(super) mod buildpack {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "wapack:buildpack/buildpack",
        imports: { default: trappable },
        exports: { default: async },
    });
}

/// `wasi:filesystem`, over our descriptors instead of those of `wasmtime-wasi`.
pub(super) mod filesystem {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package wapack:host;
            world file-system {
                import wasi:filesystem/types@0.2.12;
                import wasi:filesystem/preopens@0.2.12;
            }
        ",
        world: "wapack:host/file-system",
        imports: { default: trappable },
        require_store_data_send: true,
        trappable_error_type: {
            "wasi:filesystem/types.error-code" => rustix::io::Errno,
        },
        with: {
            "wasi:io": wasmtime_wasi::p2::bindings::io,
            "wasi:clocks": wasmtime_wasi::p2::bindings::clocks,
            "wasi:filesystem/types.descriptor": crate::executor::wasm::wasi::Descriptor,
            "wasi:filesystem/types.directory-entry-stream": crate::executor::wasm::wasi::Listing,
        },
    });
}
