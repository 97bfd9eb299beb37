#![no_main]
//! A file that may be a plugin: what it exports is read, printed as WIT, and given a codec. The bytes are
//! somebody's who may write into the plugins folder.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(inspection) = wharf_runtime::inspect(bytes) {
        let slow = inspection.without_codec(bytes);
        assert_eq!(slow.len(), inspection.services.len());
        let shown: usize = inspection.services.iter().map(|service| service.wit().len()).sum();
        assert!(shown < 8 * 1024 * 1024, "{shown} bytes of WIT");
        for service in &inspection.services {
            for method in service.methods() {
                assert!(service.notation(method).len() < 64 * 1024);
            }
        }
    }
});
