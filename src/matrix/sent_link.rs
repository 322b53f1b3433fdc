//! The picture that follows a link: into the same room, after the same checks, in the Megolm session that was made for the
//! link.
//!
//! The file is encrypted here, under a key that stands in the encrypted event alone. A homeserver keeps the files of redacted
//! events, Synapse for one, and the file of a bot that was killed before it sent the event: both are noise to whoever does
//! not have that key.

use std::{fmt, io::Cursor};

use matrix_sdk::{
    Room, RoomState,
    ruma::{
        OwnedTransactionId, OwnedUserId,
        events::room::{
            EncryptedFile, ImageInfo,
            message::{
                FormattedBody, ImageMessageEventContent, MessageType, RoomMessageEventContent,
            },
        },
    },
};
use tracing::info;

use super::{
    Fault, LinkReceipt, Matrix, NotSent,
    confidentiality::is_confidential,
    link_picture::{LinkPicture, PictureError},
    link_receipt::Picture,
    send::mentioning_nobody,
};
use crate::link::Link;

/// A link that was sent, for the picture that may follow it once.
pub struct SentLink {
    link: Link,
    recipient: OwnedUserId,
    receipt: LinkReceipt,
    /// The picture's message, once its file is on the homeserver.
    picture: Option<Box<RoomMessageEventContent>>,
}

/// What stands with the picture.
#[derive(Debug, Clone)]
pub struct PictureMessage {
    /// Under which name a client saves it.
    pub file_name: String,
    /// What is said of it, plain and HTML.
    pub caption: (String, String),
}

/// Why no picture follows a link. But for [`NoPicture::Overheard`], the link stands.
#[derive(Debug, thiserror::Error)]
pub enum NoPicture {
    /// There is none.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The homeserver did not take its file, or did not tell whether the room is fit for it. It was not sent.
    #[error("the homeserver did not take the picture")]
    NotTaken(#[source] Fault),
    /// It may be in the room, and who is in the room is not known: this has to be tried again.
    #[error("it is not known who sees the picture")]
    Unsure(#[source] Fault),
    /// The room is no longer fit for it. It was not sent.
    #[error("the direct message is no longer fit for the picture")]
    NotConfidential,
    /// Somebody else came into the room while it was sent: it has to be withdrawn, and the link too.
    #[error("somebody else came into the direct message with the picture")]
    Overheard,
}

impl NoPicture {
    /// What the same means where an earlier try may have left the picture in the room.
    fn once_tried(self) -> Self {
        match self {
            Self::NotTaken(fault) => Self::Unsure(fault),
            Self::NotConfidential => Self::Overheard,
            Self::Picture(_) | Self::Unsure(_) | Self::Overheard => self,
        }
    }
}

impl SentLink {
    pub(super) fn new(link: &Link, recipient: OwnedUserId, receipt: LinkReceipt) -> Self {
        Self {
            link: link.clone(),
            recipient,
            receipt,
            picture: None,
        }
    }

    /// What it takes to withdraw all that was sent up to now.
    #[must_use]
    pub fn receipt(&self) -> &LinkReceipt {
        &self.receipt
    }

    /// Sends the link's picture after it. The link itself is not held up by this, nor lost if it fails.
    ///
    /// Whoever drops this future halfway still has a receipt that is right: it says that the picture may have been sent.
    ///
    /// # Errors
    /// [`NoPicture`].
    pub async fn follow_with_picture(
        &mut self,
        matrix: &Matrix,
        message: &PictureMessage,
        transaction: OwnedTransactionId,
    ) -> Result<(), NoPicture> {
        if self.picture.is_some() {
            let attempt = Box::pin(self.try_to_follow(matrix, message, transaction));
            return attempt.await.map_err(NoPicture::once_tried);
        }
        self.receipt.picture = Picture::None;
        Box::pin(self.try_to_follow(matrix, message, transaction)).await
    }

    async fn try_to_follow(
        &mut self,
        matrix: &Matrix,
        message: &PictureMessage,
        transaction: OwnedTransactionId,
    ) -> Result<(), NoPicture> {
        let room = matrix.client.get_room(&self.receipt.room);
        let room = room
            .filter(|room| room.state() == RoomState::Joined)
            .ok_or(NoPicture::NotConfidential)?;
        let content = match &self.picture {
            Some(content) => *content.clone(),
            None => prepare(&room, &self.link, message).await?,
        };
        let turn = matrix.turn(&room).await;
        let _verification = matrix.keep_verified(&self.recipient).await;
        self.check(matrix, &room).await?;
        self.picture = Some(Box::new(content.clone()));
        self.receipt.picture = Picture::Unsettled;
        let sent = turn.confide(&self.recipient, content, &transaction).await;
        if let Some(event) = sent.event {
            self.receipt.picture = Picture::Sent(event);
        }
        if sent.is_confidential.map_err(NoPicture::Unsure)? {
            info!(recipient = %self.recipient, "picture of the link sent");
            Ok(())
        } else {
            Err(NoPicture::Overheard)
        }
    }

    /// What was looked at before the link was sent is looked at again: the file took its time.
    async fn check(&self, matrix: &Matrix, room: &Room) -> Result<(), NoPicture> {
        let is_confidential = async { Ok(is_confidential(room, &self.recipient).await?) };
        match tokio::try_join!(matrix.check_devices(&self.recipient), is_confidential) {
            Ok(((), true)) => Ok(()),
            Ok(((), false)) | Err(NotSent::Refused(_)) => Err(NoPicture::NotConfidential),
            Err(NotSent::Fault(fault)) => Err(NoPicture::NotTaken(fault)),
        }
    }
}

impl fmt::Debug for SentLink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { receipt, .. } = self;
        formatter
            .debug_struct("SentLink")
            .field("receipt", receipt)
            .finish_non_exhaustive()
    }
}

/// Draws the picture, and leaves its file encrypted on the homeserver.
///
/// The SDK's other ways to send a file leave it plain where the SDK believes the room to be so, or keep it in a cache. This
/// one does neither.
async fn prepare(
    room: &Room,
    link: &Link,
    message: &PictureMessage,
) -> Result<RoomMessageEventContent, NoPicture> {
    let picture = LinkPicture::draw(link)?;
    let client = room.client();
    let mut file = Cursor::new(picture.expose());
    let uploaded = client.upload_encrypted_file(&mut file).await;
    let uploaded = uploaded.map_err(Fault::from);
    let uploaded = uploaded.map_err(NoPicture::NotTaken)?;
    Ok(compose(&picture, uploaded, message))
}

fn compose(
    picture: &LinkPicture,
    file: EncryptedFile,
    message: &PictureMessage,
) -> RoomMessageEventContent {
    let (caption, html) = message.caption.clone();
    let mut info = ImageInfo::new();
    info.width = Some(picture.side().into());
    info.height = Some(picture.side().into());
    info.size = u32::try_from(picture.expose().len()).ok().map(Into::into);
    info.mimetype = Some("image/png".to_owned());
    let mut content = ImageMessageEventContent::encrypted(caption, file).info(Box::new(info));
    content.filename = Some(message.file_name.clone());
    content.formatted = Some(FormattedBody::html(html));
    mentioning_nobody(RoomMessageEventContent::new(MessageType::Image(content)))
}
