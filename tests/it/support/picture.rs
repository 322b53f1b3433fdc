//! The picture of a link (QR code): how a person's client gets it, and how a phone reads it.

use std::{io::Cursor, ops::Range};

use matrix_sdk::{
    media::{MediaFormat, MediaRequestParameters},
    ruma::events::{
        reaction::ReactionEventContent,
        relation::Annotation,
        room::{EncryptedFile, MediaSource},
    },
};
use png::{Decoder, Transformations};
use rqrr::PreparedImage;

use super::{bot::Bot, conversation::LinkMessage, event::Event, eventually, person::Person};

impl Bot {
    /// Asks for the picture of a link, by the reaction that the bot offers, and returns it. Asserts that it is encrypted, with
    /// no warning beside it.
    pub(crate) async fn picture_of(&self, person: &Person, sent: &LinkMessage) -> Event {
        let known = self.pictures_of(person).len();
        self.ask_for_picture(person, sent).await;
        let picture = eventually("a picture in the direct message", async || {
            self.pictures_of(person).get(known).cloned()
        })
        .await;
        assert_eq!(picture.shield(), "none");
        picture
    }

    /// Adds this person's reaction to the bot's own on a link.
    pub(crate) async fn ask_for_picture(&self, person: &Person, sent: &LinkMessage) {
        let is_offer = |event: &Event| {
            event.sender == self.user_id() && event.annotates() == Some(sent.event.id.as_str())
        };
        let offer = person.sees("the offer of a picture", is_offer).await;
        let key = offer.json["content"]["m.relates_to"]["key"].as_str();
        let annotation = Annotation::new(sent.event.id.clone(), key.unwrap().to_owned());
        let reaction = ReactionEventContent::new(annotation);
        person.send(sent.room(), reaction).await.unwrap();
    }

    /// All pictures of the bot that this person's client has shown, also redacted ones.
    pub(crate) fn pictures_of(&self, person: &Person) -> Vec<Event> {
        let mut events = person.events();
        events.retain(|event| {
            event.sender == self.user_id() && event.message_type() == Some("m.image")
        });
        events
    }
}

impl Person {
    /// The file of a picture, decrypted.
    pub(crate) async fn download(&self, picture: &Event) -> Vec<u8> {
        let file = Box::new(attachment(picture));
        self.fetch(MediaSource::Encrypted(file)).await
    }

    /// The file of a picture as the homeserver has it.
    pub(crate) async fn download_as_it_is(&self, picture: &Event) -> Vec<u8> {
        self.fetch(MediaSource::Plain(attachment(picture).url))
            .await
    }

    async fn fetch(&self, source: MediaSource) -> Vec<u8> {
        let format = MediaFormat::File;
        let request = MediaRequestParameters { source, format };
        let media = self.client().media();
        media.get_media_content(&request, false).await.unwrap()
    }
}

/// What a phone reads in a picture that is shown in this size, in pixels.
pub(crate) fn read_code(png: &[u8], shown: usize) -> String {
    let mut decoder = Decoder::new(Cursor::new(png));
    decoder.set_transformations(Transformations::EXPAND);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let side = usize::try_from(reader.next_frame(&mut pixels).unwrap().width).unwrap();
    let grey = |x: usize, y: usize| {
        let (rows, columns) = (seen(y, side, shown), seen(x, side, shown));
        let count = rows.len() * columns.len();
        let pixels = rows.flat_map(|row| &pixels[row * side..][columns.clone()]);
        u8::try_from(pixels.map(|pixel| usize::from(*pixel)).sum::<usize>() / count).unwrap()
    };
    let mut image = PreparedImage::prepare_from_greyscale(shown, shown, grey);
    let codes = image.detect_grids();
    assert_eq!(codes.len(), 1, "one code in a picture");
    codes[0].decode().unwrap().1
}

/// The pixels of the picture that one pixel of the screen shows.
fn seen(pixel: usize, side: usize, shown: usize) -> Range<usize> {
    let start = pixel * side / shown;
    start..((pixel + 1) * side).div_ceil(shown).max(start + 1)
}

fn attachment(picture: &Event) -> EncryptedFile {
    serde_json::from_value(picture.json["content"]["file"].clone()).unwrap()
}
