//! The QR code of a link, for a phone's camera. Most people open the link where they read it, so the picture comes on request:
//! the bot reacts to the link, and a user who adds the same reaction gets the picture. It is sent to the same room, after the
//! same checks, with the link's own key. So nothing unrequested follows the link, and no phone rings twice.
//!
//! A reaction is never encrypted, so a homeserver can forge one. The user then gets, once, a picture of a link that they have.
//!
//! The picture is as secret as the link in it. It is made in memory, and its file is encrypted here, under a key that is only
//! in the encrypted event. A homeserver keeps the files of redacted events, as Synapse does, and the file of a bot that was
//! killed before it sent the event. Both are unreadable without that key.

use std::{fmt, io::Cursor, iter};

use matrix_sdk::{
    Client,
    ruma::{
        OwnedTransactionId, OwnedUserId, UserId,
        events::room::{
            EncryptedFile, ImageInfo,
            message::{
                FormattedBody, ImageMessageEventContent, MessageType, RoomMessageEventContent,
            },
        },
    },
};
use png::{BitDepth, ColorType, Encoder, EncodingError};
use qrcode::{EcLevel, QrCode};
use tracing::info;

use super::{
    Cause, Fault, LinkReceipt, Matrix, NotSent, Reply, redact::Picture, send::mentioning_nobody,
};
use crate::link::Link;

/// The width of a module, in pixels. A link of today makes 33 modules, and with its margin a picture of 392 pixels. Shown at
/// 300, each module is wider than six pixels; a camera needs about three. And eight pixels of one bit are one byte.
const MODULE: usize = 8;

/// The margin around a code of this many modules, in modules. Readers need four to find it (ISO/IEC 18004, 9.1). Clients on a
/// phone crop pictures by up to an eighth at each side: of eight enough is left. A larger code would have too small modules.
const fn quiet_zone(modules: usize) -> usize {
    if modules <= 41 { 8 } else { 4 }
}

/// The lowest, which corrects 7 % of damage: a screen has none, and fewer modules are larger ones at the same size.
const CORRECTION: EcLevel = EcLevel::L;

/// The byte of eight white pixels. A code is dark on light, whatever the client's theme.
const LIGHT: u8 = 0xff;

const DARK: u8 = 0x00;

/// The bot's own reaction to a link, for people to add theirs. It begins with [`PICTURE_SIGN`](super::PICTURE_SIGN).
const PICTURE_OFFER: &str = "📷 QR code";

/// The picture of a link that was sent, on its way into the same room.
pub(crate) struct PictureDelivery {
    link: Link,
    recipient: OwnedUserId,
    receipt: LinkReceipt,
    /// The picture's message, once it may be in the room.
    picture: Option<Box<RoomMessageEventContent>>,
}

/// The file name and the caption of a picture.
#[derive(Debug, Clone)]
pub(crate) struct PictureMessage {
    pub file_name: String,
    pub caption: Reply,
}

/// Why a picture is not sent. The link stays, except with [`NoPicture::Overheard`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPicture {
    /// The link is longer than a QR code can be, about 2,300 bytes.
    #[error("the picture cannot be drawn")]
    NotDrawn(#[source] Cause),
    /// The homeserver did not accept its file, or the check of the room failed. It was not sent.
    #[error("the homeserver did not take the picture")]
    NotTaken(#[source] Fault),
    /// It may be in the room, and it is not known who is in the room: this has to be retried.
    #[error("it is not known who sees the picture")]
    Unsure(#[source] Fault),
    /// The room is no longer confidential. It was not sent.
    #[error("the direct message is no longer fit for the picture")]
    NotConfidential,
    /// Another user came into the room while it was sent: it has to be redacted, and the link too.
    #[error("somebody else came into the direct message with the picture")]
    Overheard,
}

impl Matrix {
    /// Offers the picture of a link, with the reaction that requests it.
    pub(crate) async fn offer_picture(
        &self,
        link: &LinkReceipt,
        transaction: &OwnedTransactionId,
    ) -> Result<(), Fault> {
        let Some(room) = self.client.get_room(&link.room) else {
            return Ok(());
        };
        self.annotate(&room, &link.event, PICTURE_OFFER, transaction)
            .await
    }
}

impl PictureDelivery {
    /// `receipt`: where this link was sent.
    pub(crate) fn new(link: Link, recipient: OwnedUserId, receipt: LinkReceipt) -> Self {
        Self {
            link,
            recipient,
            receipt,
            picture: None,
        }
    }

    /// For redacting the link, and the picture if it was sent.
    pub(crate) fn receipt(&self) -> &LinkReceipt {
        &self.receipt
    }

    /// For redacting both, whether or not the picture is sent. To be saved before it is sent.
    pub(crate) fn receipt_beforehand(&self) -> LinkReceipt {
        LinkReceipt {
            picture: Picture::Unsettled,
            ..self.receipt.clone()
        }
    }

    pub(crate) fn recipient(&self) -> &UserId {
        &self.recipient
    }

    /// Sends it. If that fails, the link stays.
    ///
    /// If this future is dropped halfway, the receipt is still right: it says that the picture may have been sent.
    pub(crate) async fn send(
        &mut self,
        matrix: &Matrix,
        message: &PictureMessage,
        transaction: OwnedTransactionId,
    ) -> Result<(), NoPicture> {
        let may_be_there = self.picture.is_some();
        let attempt = Box::pin(self.try_to_send(matrix, message, transaction));
        attempt.await.map_err(|reason| match reason {
            NoPicture::NotTaken(fault) if may_be_there => NoPicture::Unsure(fault),
            NoPicture::NotConfidential if may_be_there => NoPicture::Overheard,
            reason => reason,
        })
    }

    async fn try_to_send(
        &mut self,
        matrix: &Matrix,
        message: &PictureMessage,
        transaction: OwnedTransactionId,
    ) -> Result<(), NoPicture> {
        let content = match &self.picture {
            Some(content) => *content.clone(),
            None => prepare(&matrix.client, &self.link, message).await?,
        };
        // The same checks as before the link was sent, after the upload, which takes a while.
        let (user, sent_to) = (&self.recipient, &self.receipt.room);
        let turn = matrix.turn_to_confide(user).await;
        let room = matrix.confidential_room(user, Some(sent_to), turn, None);
        let mut room = room.await.map_err(|reason| match reason {
            NotSent::Refused(_) => NoPicture::NotConfidential,
            NotSent::Fault(fault) => NoPicture::NotTaken(fault),
        })?;
        self.picture = Some(Box::new(content.clone()));
        self.receipt.picture = Picture::Unsettled;
        let sent = room.send_with_key_of(&self.link, content, &transaction);
        let sent = sent.await.map_err(NoPicture::NotTaken)?;
        if let Some(event) = sent.event {
            self.receipt.picture = Picture::Sent(event);
        }
        if !sent.is_confidential.map_err(NoPicture::Unsure)? {
            return Err(NoPicture::Overheard);
        }
        info!(recipient = %self.recipient, "picture of the link sent");
        Ok(())
    }
}

impl fmt::Debug for PictureDelivery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { receipt, .. } = self;
        formatter
            .debug_struct("PictureDelivery")
            .field("receipt", receipt)
            .finish_non_exhaustive()
    }
}

/// Draws the picture, and uploads its file encrypted.
///
/// The SDK's other ways to send a file upload it in plain text if the SDK believes the room to be unencrypted, or keep it in a
/// cache.
async fn prepare(
    client: &Client,
    link: &Link,
    message: &PictureMessage,
) -> Result<RoomMessageEventContent, NoPicture> {
    let picture = LinkPicture::draw(link).map_err(NoPicture::NotDrawn)?;
    let mut file = Cursor::new(picture.png.as_slice());
    let uploaded = client.upload_encrypted_file(&mut file).await;
    let uploaded = uploaded.map_err(|error| NoPicture::NotTaken(error.into()))?;
    Ok(compose(&picture, uploaded, message))
}

fn compose(
    picture: &LinkPicture,
    file: EncryptedFile,
    message: &PictureMessage,
) -> RoomMessageEventContent {
    let Reply { plain, html } = message.caption.clone();
    let mut info = ImageInfo::new();
    info.width = Some(picture.side.into());
    info.height = Some(picture.side.into());
    info.size = u32::try_from(picture.png.len()).ok().map(Into::into);
    info.mimetype = Some("image/png".to_owned());
    let mut content = ImageMessageEventContent::encrypted(plain, file).info(Box::new(info));
    content.filename = Some(message.file_name.clone());
    content.formatted = Some(FormattedBody::html(html));
    mentioning_nobody(RoomMessageEventContent::new(MessageType::Image(content)))
}

/// A PNG of a link. Nothing prints it.
struct LinkPicture {
    png: Vec<u8>,
    /// Its width and its height, in pixels.
    side: u32,
}

impl LinkPicture {
    fn draw(link: &Link) -> Result<Self, Cause> {
        let code = QrCode::with_error_correction_level(link.expose(), CORRECTION)?;
        let quiet_zone = quiet_zone(code.width());
        let side = (code.width() + 2 * quiet_zone) * MODULE;
        let margin = vec![LIGHT; side / 8 * quiet_zone * MODULE];
        let mut pixels = margin.clone();
        for row in code.to_colors().chunks(code.width()) {
            let modules = row.iter().map(|module| module.select(DARK, LIGHT));
            let mut pixel_row = vec![LIGHT; quiet_zone];
            pixel_row.extend(modules);
            pixel_row.extend(iter::repeat_n(LIGHT, quiet_zone));
            pixels.extend(pixel_row.repeat(MODULE));
        }
        pixels.extend(margin);
        // A code has at most 177 modules, so its side is far from any limit.
        let side = u32::try_from(side).unwrap_or(u32::MAX);
        Ok(Self {
            png: encode(&pixels, side)?,
            side,
        })
    }
}

/// `pixels`: a bit each, in lines of whole bytes.
fn encode(pixels: &[u8], side: u32) -> Result<Vec<u8>, EncodingError> {
    let mut png = Vec::new();
    let mut encoder = Encoder::new(&mut png, side, side);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::One);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(png)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use png::{Decoder, Transformations};
    use rqrr::PreparedImage;

    use super::*;

    /// Links of each kind, and one as long as they may become.
    fn links() -> Vec<String> {
        vec![
            "https://claude.ai/code?environment=env_0123456789abcdef01234567".to_owned(),
            "https://claude.ai/code/session_01AbCdEfGhIjKlMnOpQrStUv?from=cli".to_owned(),
            format!(
                "https://claude.ai/code?environment=env_{}",
                "x9".repeat(150)
            ),
        ]
    }

    /// The pixels of a picture, and its side.
    fn pixels(picture: &LinkPicture) -> (Vec<u8>, usize) {
        let mut decoder = Decoder::new(Cursor::new(picture.png.as_slice()));
        decoder.set_transformations(Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(info.width, info.height);
        assert_eq!(info.width, picture.side);
        (pixels, info.width.try_into().unwrap())
    }

    /// What a camera reads from a screen that shows the picture at this size.
    fn read(picture: &LinkPicture, shown: usize) -> String {
        let (pixels, side) = pixels(picture);
        let grey = |x: usize, y: usize| {
            let (columns, rows) = (span(x, side, shown), span(y, side, shown));
            let sum: usize = rows
                .clone()
                .flat_map(|row| columns.clone().map(move |column| row * side + column))
                .map(|at| usize::from(pixels[at]))
                .sum();
            u8::try_from(sum / (rows.len() * columns.len())).unwrap()
        };
        let mut image = PreparedImage::prepare_from_greyscale(shown, shown, grey);
        let codes = image.detect_grids();
        assert_eq!(
            codes.len(),
            1,
            "one code in a picture of {side} pixels, shown at {shown}"
        );
        codes[0].decode().unwrap().1
    }

    /// The pixels of the picture that one pixel of the screen shows.
    fn span(pixel: usize, side: usize, shown: usize) -> std::ops::Range<usize> {
        let start = pixel * side / shown;
        start..((pixel + 1) * side).div_ceil(shown).max(start + 1)
    }

    #[test]
    fn another_reader_finds_the_link_in_its_picture_at_any_size_of_300_pixels_and_more() {
        for text in links() {
            let picture = LinkPicture::draw(&Link::parse(&text).unwrap()).unwrap();
            let own = usize::try_from(picture.side).unwrap();
            for shown in [300, 360, own, 1000] {
                assert_eq!(read(&picture, shown), text, "at {shown} pixels");
            }
        }
    }

    #[test]
    fn a_picture_that_a_phone_crops_at_the_sides_still_has_its_link() {
        for text in &links()[..2] {
            let picture = LinkPicture::draw(&Link::parse(text).unwrap()).unwrap();
            let (pixels, side) = pixels(&picture);
            // Shown 400 pixels high, and 303 of them wide: what Cinny does at 390.
            let cut = side * (400 - 303) / 400 / 2;
            let mut image = PreparedImage::prepare_from_greyscale(side - 2 * cut, side, |x, y| {
                pixels[y * side + x + cut]
            });
            assert_eq!(image.detect_grids()[0].decode().unwrap().1, *text);
        }
    }

    #[test]
    fn a_code_stands_in_a_quiet_zone_and_is_dark_on_light() {
        let link = Link::parse(&links().remove(0)).unwrap();
        let (pixels, side) = pixels(&LinkPicture::draw(&link).unwrap());
        let margin = quiet_zone(33) * MODULE;
        let is_margin = |at: usize| at < margin || at >= side - margin;
        for (at, pixel) in pixels.iter().enumerate() {
            if is_margin(at % side) || is_margin(at / side) {
                assert_eq!(*pixel, 255, "{}, {}", at % side, at / side);
            }
        }
        // The corner of the first finder pattern.
        assert_eq!(pixels[margin * side + margin], 0);
    }

    #[test]
    fn a_link_that_is_too_long_has_no_picture_and_is_not_in_the_error() {
        let link = Link::parse(&format!("https://claude.ai/{}", "x".repeat(3000))).unwrap();
        let error = LinkPicture::draw(&link).err().unwrap();
        assert!(!format!("{error:?}").contains("xxx"));
    }
}
