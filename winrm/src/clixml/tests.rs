use proptest::prelude::*;

use super::*;

const HEAD: &str = "#< CLIXML\r\n<Objs Version=\"1.1.0.1\" xmlns=\"http://schemas.microsoft.com/powershell/2004/04\">";

/// What came out, texts joined: a text is the same however it was cut.
fn decoded<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let mut out = |item: Item| match (items.last_mut(), item) {
        (_, Item::Text(text)) if text.is_empty() => panic!("an empty text"),
        (Some(Item::Text(last)), Item::Text(text)) => *last = [&last[..], &text[..]].concat().into(),
        (_, item) => items.push(item),
    };
    let mut decoder = Decoder::new();
    for piece in pieces {
        decoder.push(Bytes::copy_from_slice(piece), &mut out);
    }
    decoder.finish(&mut out);
    items
}

fn whole(text: &str) -> Vec<Item> {
    decoded([text.as_bytes()])
}

fn record(kind: RecordKind, text: &str) -> Item {
    Item::Record(Record { kind, text: text.to_owned() })
}

fn text(text: &str) -> Item {
    Item::Text(Bytes::copy_from_slice(text.as_bytes()))
}

/// As PowerShell 5.1 writes it: a progress record of the first import of a module comes first.
const PROGRESS: &str = "<Obj S=\"progress\" RefId=\"0\"><TN RefId=\"0\"><T>System.Management.Automation.PSCustomObject</T>\
    <T>System.Object</T></TN><MS><I64 N=\"SourceId\">1</I64><PR N=\"Record\"><AV>Preparing modules for first use.</AV>\
    <AI>0</AI><Nil /><PI>-1</PI><PC>-1</PC><T>Completed</T><SR>-1</SR><SD> </SD></PR></MS></Obj>";

#[test]
fn records_come_out_of_their_elements() {
    let document = format!(
        "before\r\n{HEAD}{PROGRESS}<S S=\"Error\">a &lt;b&gt; &amp; c : _x0041__x000D__x000A_</S><S S=\"warning\">w</S>\
         <S S=\"Verbose\">v</S><S S=\"debug\">d</S><S S=\"information\">i</S></Objs>after"
    );
    let expected = vec![
        text("before\r\n"),
        record(RecordKind::Error, "a <b> & c : A\r\n"),
        record(RecordKind::Warning, "w"),
        record(RecordKind::Verbose, "v"),
        record(RecordKind::Debug, "d"),
        record(RecordKind::Information, "i"),
        text("after"),
    ];
    assert_eq!(whole(&document), expected);
    // A byte at a time.
    assert_eq!(decoded(document.as_bytes().chunks(1)), expected);
}

#[test]
fn records_come_as_soon_as_they_are_whole() {
    let mut decoder = Decoder::new();
    let mut items = Vec::new();
    decoder.push(Bytes::from(format!("{HEAD}<S S=\"Error\">one</S><S S=\"Err")), &mut |item| items.push(item));
    assert_eq!(items, [record(RecordKind::Error, "one")]);
}

#[test]
fn information_records_say_their_message() {
    let object = |message: &str| {
        format!(
            "{HEAD}<Obj S=\"information\" RefId=\"0\"><TN RefId=\"0\"><T>System.Management.Automation.InformationRecord</T></TN>\
             <ToString>shown</ToString><Props>{message}<S N=\"Source\">Write-Information</S></Props></Obj></Objs>"
        )
    };
    let plain = object("<S N=\"MessageData\">he_x000A_llo</S>");
    assert_eq!(whole(&plain), [record(RecordKind::Information, "he\nllo")]);
    let host = object(
        "<Obj N=\"MessageData\" RefId=\"1\"><ToString>from host</ToString><Props><S N=\"Message\">from host</S>\
         <B N=\"NoNewLine\">false</B></Props></Obj>",
    );
    assert_eq!(whole(&host), [record(RecordKind::Information, "from host")]);
    assert_eq!(whole(&object("")), [record(RecordKind::Information, "shown")]);
}

#[test]
fn several_documents_in_a_row() {
    let one = format!("{HEAD}<S S=\"Error\">1</S></Objs>");
    let two = format!("{HEAD}<S S=\"Error\">2</S></Objs>");
    let list = two.strip_prefix("#< CLIXML\r\n").unwrap();
    let both = [record(RecordKind::Error, "1"), record(RecordKind::Error, "2")];
    assert_eq!(whole(&format!("{one}{two}")), both);
    assert_eq!(whole(&format!("{one}{list}")), both);
    assert_eq!(whole(&format!("{one}\r\n{list}")), both);
    assert_eq!(whole(&format!("#< CLIXML\r\n{one}{list}")), both);
    let [first, second] = both;
    assert_eq!(whole(&format!("{one}\r\n{two}\n")), [first, text("\r\n"), second, text("\n")]);
    assert_eq!(whole(&format!("{HEAD}</Objs>{HEAD}{PROGRESS}</Objs>")), []);
}

#[test]
fn what_is_no_clixml_passes_through() {
    let large = format!("{HEAD}<S S=\"Error\">{}</S></Objs>", "x".repeat(MAX_ELEMENT));
    let deep = format!("{HEAD}{}", "<A>".repeat(MAX_DEPTH + 1));
    let long = format!("{HEAD}<S a=\"{}\"/>", "x".repeat(MAX_TAG));
    let blank = format!("#< CLIXML{}<Objs>", " ".repeat(MAX_OPENING + 1));
    for document in [
        "#",
        "#< CLIXM",
        "#< CLIXML",
        "##< CLIXML is how it begins\r\n",
        "#< CLIXML\r\nnothing of the kind",
        "#< CLIXML\r\n<Objs Version=\"1\"",
        "#< CLIXML\r\n<Objects>",
        "#< CLIXML\r\n<Objs><!-- no --></Objs>",
        "#< CLIXML\r\n<Objs><S S=\"Error\">a</T></Objs>",
        "#< CLIXML\r\n<Objs><S S=\"Error\">a&other;</S></Objs>",
        "#< CLIXML\r\n<Objs><S S=\"Error\">cut",
        "#< CLIXML\r\n<Objs>text</Objs>",
        "#< CLIXML\r\n<Objs></S></Objs>",
        "#< CLIXML\r\n<Objs><S S=Error>a</S></Objs>",
        "#< CLIXML\r\n<Objs><S S=\"a\" S=\"b\">a</S></Objs>",
        "#< CLIXML\r\n<Objs>",
        &large,
        &deep,
        &long,
        &blank,
    ] {
        assert_eq!(whole(document), [text(document)], "{:.60}", document);
        assert_eq!(decoded(document.as_bytes().chunks(7)), [text(document)], "{:.60}", document);
    }
    let latin = [HEAD.as_bytes(), b"<S S=\"Error\">\xfc</S></Objs>"].concat();
    assert_eq!(decoded([&latin[..]]), [Item::Text(latin.into())]);
}

#[test]
fn a_document_that_breaks_off_keeps_what_it_had_and_the_next_is_read() {
    let document = format!(
        "{HEAD}<S S=\"Error\">1</S><S S=\"Error\">2 oops {HEAD}<I32 S=\"x\">5</I32><S S=\"Error\">3</S></Objs>"
    );
    let expected = [
        record(RecordKind::Error, "1"),
        text("<S S=\"Error\">2 oops <I32 S=\"x\">5</I32>"),
        record(RecordKind::Error, "3"),
    ];
    assert_eq!(whole(&document), expected);
}

#[test]
fn escapes_are_undone_and_nothing_else() {
    for (escaped, text) in [
        ("plain", "plain"),
        ("_x000A__x000D_", "\n\r"),
        ("_x005F_x000A_", "_x000A_"),
        ("_x005f_", "_"),
        ("_xD83D__xDE00_", "\u{1f600}"),
        ("_xD83D_x", "_xD83D_x"),
        ("_xD83D__x0041_", "_xD83D_A"),
        ("_xDE00__xD83D_", "_xDE00__xD83D_"),
        ("_x00_ _x_ _xGGGG_ _x0041 __x0041_", "_x00_ _x_ _xGGGG_ _x0041 _A"),
        ("_x+041_", "_x+041_"),
        ("snake_x_case", "snake_x_case"),
        ("_xé00_", "_xé00_"),
        ("_", "_"),
        ("_x004", "_x004"),
    ] {
        assert_eq!(unescape(escaped), text);
    }
}

#[test]
fn text_without_a_marker_is_not_copied() {
    let data = Bytes::from_static(b"line # 1\r\nline # 2\r\n");
    let mut decoder = Decoder::new();
    decoder.push(data.clone(), &mut |item| match item {
        Item::Text(text) => assert_eq!((text.as_ptr(), text.len()), (data.as_ptr(), data.len())),
        Item::Record(record) => panic!("{record:?}"),
    });
}

#[test]
fn records_are_shown_as_powershell_shows_them() {
    let shown = |kind, text: &str| Record { kind, text: text.to_owned() }.shown();
    assert_eq!(shown(RecordKind::Error, "bad\r\n"), "bad\r\n");
    assert_eq!(shown(RecordKind::Warning, "careful"), "WARNING: careful\r\n");
    assert_eq!(shown(RecordKind::Information, "x"), "");
}

proptest! {
    #[test]
    fn where_the_stream_is_cut_changes_nothing(
        parts in proptest::collection::vec(prop_oneof![
            Just(HEAD), Just("#< CLIXML"), Just("\r\n"), Just("<Objs>"), Just("</Objs>"), Just("<S S=\"Error\">"), Just("</S>"),
            Just("_x000A_"), Just("text"), Just("&lt;"), Just("&"), Just("<"), Just("<Obj S=\"progress\">"), Just("</Obj>"),
            Just("<Objs/>"), Just("#"), Just("<S S=\"Debug\"/>"), Just("\""), Just("\u{e9}"),
            Just("<S S=\"Error\">good</S>"),
        ], 0..24),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
    ) {
        let document = parts.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(document.len() + 1)).collect();
        cuts.extend([0, document.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &document.as_bytes()[pair[0]..pair[1]]);
        prop_assert_eq!(decoded(pieces), whole(&document));
        prop_assert_eq!(decoded(document.as_bytes().chunks(1)), whole(&document));
    }

    #[test]
    fn any_bytes_without_a_marker_pass(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
        prop_assume!(!bytes.windows(MARKER.len()).any(|window| window == MARKER));
        prop_assert_eq!(decoded(bytes.chunks(3)), vec![Item::Text(bytes.clone().into())]);
    }
}
