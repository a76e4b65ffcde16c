"""A delivery remembers how long its other side asked us to wait, and since when it does not know our key."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("consents", "0023_letter")]
    operations = [
        migrations.AddField(
            model_name="delivery",
            name="not_before",
            field=models.DateTimeField(
                blank=True,
                help_text="they asked for so much time, or our policy does: nothing hurries the next try",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="delivery",
            name="key_fault_at",
            field=models.DateTimeField(
                blank=True,
                help_text="since when each try was answered that our key is not known",
                null=True,
            ),
        ),
    ]
