//! A link as a QR code, for the camera of a telephone beside the screen.
//!
//! The picture is as secret as the link in it: it is made in memory, and leaves encrypted.

use std::fmt;

use png::{BitDepth, ColorType, Encoder, EncodingError};
use qrcode::{EcLevel, QrCode, types::QrError};

use crate::link::Link;

/// How wide a module is, in pixels. A link of today makes 33 modules, and with its margin a picture of 328 pixels; shown at
/// 300, each is still wider than seven, where a camera needs about three. Eight pixels of one bit are one byte besides.
const MODULE: usize = 8;

/// The margin around the code in modules, without which readers do not find it: ISO/IEC 18004, 9.1.
const QUIET_ZONE: usize = 4;

/// The lowest, which mends 7 % of damage: a screen has no holes, and fewer modules are larger ones at the same size.
const CORRECTION: EcLevel = EcLevel::L;

/// The byte of eight white pixels. A code is dark on light, whatever the client's theme.
const LIGHT: u8 = 0xff;

/// The byte of eight black pixels.
const DARK: u8 = 0x00;

/// A PNG of a link.
pub(super) struct LinkPicture {
    png: Vec<u8>,
    /// Its width and its height, in pixels.
    side: u32,
}

/// Why a link has no picture. It never holds the link.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// It is longer than a QR code can be, about 2,300 bytes.
    #[error("the link does not fit into a QR code")]
    TooLong(#[source] QrError),
    /// It cannot be written as a PNG.
    #[error("the picture cannot be encoded")]
    Encode(#[from] EncodingError),
}

impl LinkPicture {
    /// Draws it.
    pub(super) fn draw(link: &Link) -> Result<Self, PictureError> {
        let code = QrCode::with_error_correction_level(link.expose(), CORRECTION)
            .map_err(PictureError::TooLong)?;
        let side = (code.width() + 2 * QUIET_ZONE) * MODULE;
        let margin = vec![LIGHT; side / 8 * QUIET_ZONE * MODULE];
        let mut pixels = margin.clone();
        for row in code.to_colors().chunks(code.width()) {
            let modules = row.iter().map(|module| module.select(DARK, LIGHT));
            let mut pixel_row = vec![LIGHT; QUIET_ZONE];
            pixel_row.extend(modules);
            pixel_row.extend([LIGHT; QUIET_ZONE]);
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

    /// The file itself: for the encrypted attachment, and nothing else.
    pub(super) fn expose(&self) -> &[u8] {
        &self.png
    }

    /// Its width and its height, in pixels.
    pub(super) fn side(&self) -> u32 {
        self.side
    }
}

impl fmt::Debug for LinkPicture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("LinkPicture(..)")
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

    /// The links that there are, and one as long as they may become.
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
        let mut decoder = Decoder::new(Cursor::new(picture.expose()));
        decoder.set_transformations(Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(info.width, info.height);
        assert_eq!(info.width, picture.side());
        (pixels, info.width.try_into().unwrap())
    }

    /// What a camera reads off a screen that shows the picture so large.
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
            let own = usize::try_from(picture.side()).unwrap();
            for shown in [300, 360, own, 1000] {
                assert_eq!(read(&picture, shown), text, "at {shown} pixels");
            }
        }
    }

    #[test]
    fn a_code_stands_in_a_quiet_zone_and_is_dark_on_light() {
        let link = Link::parse(&links().remove(0)).unwrap();
        let (pixels, side) = pixels(&LinkPicture::draw(&link).unwrap());
        let margin = QUIET_ZONE * MODULE;
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
    fn a_link_that_is_too_long_has_no_picture_and_is_not_told() {
        let link = Link::parse(&format!("https://claude.ai/{}", "x".repeat(3000))).unwrap();
        let error = LinkPicture::draw(&link).unwrap_err();
        assert!(matches!(error, PictureError::TooLong(_)));
        assert!(!format!("{error:?}").contains("xxx"));
    }

    #[test]
    fn debug_shows_nothing_of_a_picture() {
        let picture = LinkPicture::draw(&Link::parse(&links().remove(0)).unwrap()).unwrap();
        assert_eq!(format!("{picture:?}"), "LinkPicture(..)");
    }
}
