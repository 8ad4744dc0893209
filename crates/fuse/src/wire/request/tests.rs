use proptest::prelude::*;

use super::*;

/// A request with a right header.
fn request(opcode: u32, extension: u16, arguments: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&u32::try_from(IN_HEADER_BYTES + arguments.len()).unwrap().to_ne_bytes());
    bytes.extend_from_slice(&opcode.to_ne_bytes());
    bytes.extend_from_slice(&(1_u64 << 63 | 42).to_ne_bytes());
    bytes.extend_from_slice(&7_u64.to_ne_bytes());
    for field in [1000_u32, 100, 4711] {
        bytes.extend_from_slice(&field.to_ne_bytes());
    }
    bytes.extend_from_slice(&extension.to_ne_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(arguments);
    bytes
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn halves(low: u32, high: u32) -> u64 {
    let [a, b, c, d] = low.to_ne_bytes();
    let [e, f, g, h] = high.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

#[test]
fn the_header_is_read_as_the_kernel_writes_it() {
    let bytes = request(opcode::GETATTR, 0, &words(&[0, 0]));
    let (header, operation) = parse(&bytes).unwrap();
    let caller = Caller { uid: 1000, gid: 100, pid: 4711 };
    let unique = 1 << 63 | 42;
    assert_eq!(header, Header { opcode: 3, unique, node: NodeId(7), caller });
    assert_eq!(operation, Operation::Getattr);
}

#[test]
fn arguments_are_read_as_the_kernel_writes_them() {
    let cases: [(u32, Vec<u8>, Operation<'_>); 9] = [
        (opcode::LOOKUP, b"name\0".to_vec(), Operation::Lookup { name: OsStr::new("name") }),
        (opcode::FORGET, words(&[3]), Operation::Forget { count: 3 }),
        (opcode::OPEN, words(&[halves(0o100_000, 0)]), Operation::Open { flags: 0o100_000 }),
        (
            opcode::READ,
            words(&[9, 4096, halves(65_536, 0), 0, 0]),
            Operation::Read { handle: 9, offset: 4096, size: 65_536 },
        ),
        (
            opcode::READDIRPLUS,
            words(&[9, 17, halves(4096, 0), 0, 0]),
            Operation::Readdir { handle: 9, offset: 17, size: 4096, plus: true },
        ),
        (opcode::RELEASE, words(&[9, 0, 0]), Operation::Release { handle: 9 }),
        (
            opcode::GETXATTR,
            [words(&[halves(256, 0)]), b"user.x\0".to_vec()].concat(),
            Operation::Getxattr { size: 256, name: OsStr::new("user.x") },
        ),
        (opcode::LISTXATTR, words(&[halves(256, 0)]), Operation::Listxattr { size: 256 }),
        (opcode::INTERRUPT, words(&[1 << 63 | 40]), Operation::Interrupt { target: 1 << 63 | 40 }),
    ];
    for (code, arguments, expected) in cases {
        assert_eq!(parse(&request(code, 0, &arguments)).unwrap().1, expected);
    }
    let bytes = request(opcode::BATCH_FORGET, 0, &words(&[halves(2, 0), 5, 1, 6, 100]));
    let Ok((_, Operation::BatchForget(forgets))) = parse(&bytes) else { panic!("not a batch") };
    assert_eq!(forgets.collect::<Vec<_>>(), [(NodeId(5), 1), (NodeId(6), 100)]);
}

#[test]
fn extensions_are_not_arguments() {
    let bytes = request(opcode::LOOKUP, 2, &[b"x\0".to_vec(), vec![7; 16]].concat());
    assert_eq!(parse(&bytes).unwrap().1, Operation::Lookup { name: OsStr::new("x") });
    let too_long = request(opcode::LOOKUP, 9, &[b"x\0".to_vec(), vec![7; 16]].concat());
    assert!(matches!(parse(&too_long), Err(ParseError::Arguments { .. })));
}

#[test]
fn counts_and_lengths_that_lie_are_refused() {
    let batch = request(opcode::BATCH_FORGET, 0, &words(&[halves(u32::MAX, 0), 5, 1]));
    assert!(matches!(parse(&batch), Err(ParseError::Arguments { opcode: opcode::BATCH_FORGET, .. })));
    let mut long = request(opcode::GETATTR, 0, &[]);
    long.push(0);
    assert_eq!(parse(&long), Err(ParseError::Length { got: 41, said: 40 }));
    assert!(parse(&request(opcode::LOOKUP, 0, b"no end")).is_err());
}

#[test]
fn what_writes_is_refused_and_what_is_new_is_not_supported() {
    for code in [4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 47, 51, 53] {
        assert_eq!(parse(&request(code, 0, &[])).unwrap().1, Operation::Write, "{code}");
    }
    // FSYNC FLUSH FSYNCDIR GETLK ACCESS IOCTL POLL LSEEK SYNCFS STATX, and one that does not exist
    for code in [20, 25, 30, 31, 34, 39, 40, 46, 50, 52, 4711] {
        assert_eq!(parse(&request(code, 0, &[])).unwrap().1, Operation::Unsupported, "{code}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn any_arguments_are_parsed_or_refused(
        code in 0_u32..60,
        extension in 0_u16..40,
        arguments in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = request(code, extension, &arguments);
        match parse(&bytes) {
            Ok((header, Operation::BatchForget(forgets))) => {
                prop_assert_eq!(header.unique, 1 << 63 | 42);
                prop_assert!(forgets.count() * 16 <= arguments.len());
            }
            Ok((header, _)) => prop_assert_eq!(header.unique, 1 << 63 | 42),
            Err(error) => prop_assert_eq!(error, ParseError::Arguments { opcode: code, unique: 1 << 63 | 42 }),
        }
    }
}
