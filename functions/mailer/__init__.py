"""What `send-email` and `send-email-background` share; standard library only.

read_mail(event, context)   the mail that a request asks for, or BadMail
send(mail)                  sends it by SendGrid, by SMTP or into a folder, or Refused, or TryLater
"""

from mailer.delivery import Refused, TryLater, send
from mailer.mail import BadMail, Mail, read_mail

__all__ = ["BadMail", "Mail", "Refused", "TryLater", "read_mail", "send"]
