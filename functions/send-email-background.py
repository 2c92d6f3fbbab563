"""Sends a mail in the background: the 202 comes at once, the mail is on its way when it can be.

curl -i -d '{"to": "ada@example.org", "subject": "Hi", "text": "Hello, Ada."}' \
     -H content-type:application/json localhost:8888/.netlify/functions/send-email-background

The name ends in `-background`, and that is what makes it a background function. What it raises says
what happens next: an error is tried again after a minute, and then after two.
"""

from mailer import BadMail, Refused, TryLater, read_mail, send

from quarterhour import DoNotRetry, RetryAfter


def handler(event, context):
    try:
        message = send(read_mail(event, context))
    except (BadMail, Refused) as error:
        raise DoNotRetry(str(error)) from error  # it would be refused again
    except TryLater as error:
        if error.asked_for:  # the other side has said when
            raise RetryAfter(error.delay_s, str(error)) from error
        raise
    print(message)
    return {"message": message}  # is kept as the invocation's result
