//! Frames as grpc-go writes them.

use proptest::prelude::*;

use super::*;

/// A frame of stream 1.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// The beginning of a connection, with one call.
fn connection(block: &[u8]) -> Vec<u8> {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    [&preface[..], &frame(4, 0, &[]), &frame(HEADERS, END_HEADERS, block), &frame(0, 1, &[0; 5])].concat()
}

/// What comes of bytes that arrive in pieces of this size.
fn passed(bytes: &[u8], piece: usize) -> Vec<u8> {
    let (mut mended, mut out) = (Mended::new(), Vec::new());
    bytes.chunks(piece).for_each(|part| mended.pass(part, &mut out));
    mended.end(&mut out);
    out
}

/// `:method: POST`, `:scheme: http`, the path by its name's index, the authority in the given form, another field.
fn block(first: u8, authority: &[u8], huffman: bool) -> Vec<u8> {
    let length = u8::try_from(authority.len()).unwrap() | if huffman { 0x80 } else { 0 };
    let (path, agent) = (b"\x45\x06/a%2Fb", b"\x00\x08x%2Fname\x05grp/c");
    [&[0x3f, 0xe1, 0x1f, 0x83, 0x86][..], &path[..], &[first, length], authority, &agent[..]].concat()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn a_path_becomes_an_authority_and_nothing_else_changes() {
    // In the order: with incremental indexing, without, never indexed.
    for first in [0x41, 0x01, 0x11] {
        for (from, to) in [(&b"%2Fvar%2Frun.sock"[..], &b"-2Fvar-2Frun.sock"[..]), (b"/var/x", b"-var-x")] {
            let (sent, expected) = (block(first, from, false), block(first, to, false));
            assert_eq!(passed(&connection(&sent), 1 << 20), connection(&expected));
        }
    }
    let fine = connection(&block(0x41, b"localhost", false));
    assert_eq!(passed(&fine, 1 << 20), fine);
}

#[test]
fn the_same_in_huffman_code() {
    let pairs = [
        // %2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2Fcvmfs.csi.cern.ch-reg.sock and the same with dashes
        (
            "54587b8ec545868346a8b0f5b632d054aa2c35d16cc6a91158598c84d9e95161277a6542e44197216ca9724eb58599741c9d7f",
            "58587b8ec585868346b0b0f5b632d054ac2c35d16cc6a91158598c84d9e96161277a6542e44197216ca9724eb58599741c9d7f",
        ),
        // /var/lib/kubelet/X_Z.sock, with codes of 5, 6, 7 and 8 bits
        ("63b8ec628346c75b632d054b1f917eae8393af", "5bb8ec5a8346b75b632d054adf917eae8393af"),
    ];
    for (from, to) in pairs {
        let (sent, expected) = (block(0x41, &bytes(from), true), block(0x41, &bytes(to), true));
        assert_eq!(passed(&connection(&sent), 1 << 20), connection(&expected));
        assert_eq!(passed(&connection(&sent), 1), connection(&expected), "byte by byte");
    }
    // www.example.com, as RFC 7541 has it in C.4.1
    let fine = connection(&block(0x41, &bytes("f1e3c2e5f23a6ba0ab90f4ff"), true));
    assert_eq!(passed(&fine, 1 << 20), fine);
}

#[test]
fn padding_and_priority_are_passed_over() {
    let padded = |value: &[u8]| {
        let payload = [&[2, 0, 0, 0, 0, 16][..], &block(0x41, value, false), &[0, 0]].concat();
        [&[b'P'; PREFACE][..], &frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &payload)].concat()
    };
    assert_eq!(passed(&padded(b"/x"), 3), padded(b"-x"));
}

proptest! {
    #[test]
    fn nothing_is_lost_added_or_held_back_for_ever(content in prop::collection::vec(any::<u8>(), 0..400), piece in 1_usize..50) {
        let sent = connection(&content);
        let whole = passed(&sent, sent.len());
        prop_assert_eq!(whole.len(), sent.len());
        prop_assert_eq!(passed(&sent, piece), whole);
        prop_assert_eq!(passed(&content, piece).len(), content.len());
    }
}
